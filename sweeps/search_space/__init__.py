"""Search spaces: grids, random, quasi-random and adaptive points."""
