"""TFDS builders of the corpora and the files they read."""
