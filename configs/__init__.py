"""One config file is one experiment."""
