"""How parameters change: steps, optimisers, devices, checkpoints, logs."""
