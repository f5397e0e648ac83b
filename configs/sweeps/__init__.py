"""What sweeps try: one file a search space."""
