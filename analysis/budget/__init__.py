"""Model sizes at equal parameters, FLOPs or seconds."""
