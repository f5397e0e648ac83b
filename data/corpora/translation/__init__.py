"""TFDS builders of parallel corpora."""
