"""Relations between two marked entities of a sentence."""
