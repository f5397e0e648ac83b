"""Labelled texts and documents as batches for encoders."""
