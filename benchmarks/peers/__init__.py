"""Other libraries on the same workloads; each module is a measured process.

They need no JAX; `make setup-bench` installs their packages in an environment of its
own.
"""
