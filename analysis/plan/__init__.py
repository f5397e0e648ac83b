"""Plans of training runs: parameters, FLOPs, memory and compiled programs."""
