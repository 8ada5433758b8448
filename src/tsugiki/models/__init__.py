"""Llama-family decoders with Hugging Face weight names, their tokenizers, and Hugging Face directories."""
