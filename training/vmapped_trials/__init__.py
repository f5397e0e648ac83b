"""Training of several trials as one compiled program with vmap."""
