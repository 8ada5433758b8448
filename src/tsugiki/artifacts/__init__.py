"""What flows between stages, and nothing else: documents, models, scores, and their manifests."""
