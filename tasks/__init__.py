"""Tasks: losses, evaluation and inference, independent of the architecture."""
