"""Import of published Transformer-XL weights."""
