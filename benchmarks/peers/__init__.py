"""How other libraries do the same work; each file is a process, see protocol.py.

Our own code for the use of each, after its documentation. None of this needs JAX, and
nothing of ours needs what these import: `make setup-bench` installs it.
"""
