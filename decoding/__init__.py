"""Decoding: searches over a model's next-token distributions."""
