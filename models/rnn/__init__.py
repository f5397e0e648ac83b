"""RNN encoder-decoder with additive attention (Bahdanau et al. 2015)."""
