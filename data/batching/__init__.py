"""Batches as a function of their number: buckets, documents and streams."""
