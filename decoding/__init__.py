"""Search: from the next token's distribution to texts."""
