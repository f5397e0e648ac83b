"""Token ids of a corpus, stored once and mapped from disk."""
