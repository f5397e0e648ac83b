"""Building, validating, training and restoring the experiment of a config."""
