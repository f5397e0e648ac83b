"""What several configs have in common: models and how they are trained."""
