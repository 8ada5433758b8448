"""Looking into a finished corpus: what other thresholds would keep, single documents, export.

Everything here reads the stored columns of documents/ and rejected/; nothing is recomputed from texts.
"""
