"""Pre-training of encoders with masked language modeling."""
