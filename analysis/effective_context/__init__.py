"""Loss by context length and relative effective context length (RECL)."""
