"""Corpora, tokenizers, token ids and batches."""
