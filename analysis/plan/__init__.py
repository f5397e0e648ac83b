"""Memory and compute of a training step, before it runs."""
