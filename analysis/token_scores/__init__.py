"""Log probabilities of the tokens of a text under one run, or two, as a page."""
