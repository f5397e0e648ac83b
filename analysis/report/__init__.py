"""Reports that compare finished runs."""
