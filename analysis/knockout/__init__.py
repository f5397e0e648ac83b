"""Causal effects of the parts of a trained model, measured by switching them off."""
