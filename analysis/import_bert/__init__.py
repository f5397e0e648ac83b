"""Import of published BERT weights."""
