"""Steps of a run, computed again and evaluated one operation at a time."""
