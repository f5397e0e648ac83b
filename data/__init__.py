"""From corpora to batches of numbers."""
