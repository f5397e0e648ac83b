"""Reports, significance tests and other analyses of run directories."""
