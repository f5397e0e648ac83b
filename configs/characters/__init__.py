"""Language models of text by characters."""
