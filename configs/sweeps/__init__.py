"""Search spaces of sweeps, one a file (see sweeps/search_space.py)."""
