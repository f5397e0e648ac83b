"""Multi-head dot-product attention, its implementations and its key/value cache."""
