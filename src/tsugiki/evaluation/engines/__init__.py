"""Models that answer: ours, those of transformers, and servers, all of them a `Backend`."""
