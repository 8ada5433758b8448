"""Decoders, dense and sparse, with Hugging Face weight names, their tokenizers and model directories."""
