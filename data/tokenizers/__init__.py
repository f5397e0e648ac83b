"""Tokenizers and the vocabularies they are built from."""
