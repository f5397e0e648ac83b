"""Tasks of language understanding, with their scores and baselines."""
