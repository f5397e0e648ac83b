"""TFDS builders of monolingual text corpora."""
