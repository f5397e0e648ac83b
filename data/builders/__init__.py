"""TFDS builders; one file a corpus."""
