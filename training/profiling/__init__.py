"""FLOP counts, peak rates, memory figures and traces."""
