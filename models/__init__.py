"""The architectures; one file each, see the contract in README.md."""
