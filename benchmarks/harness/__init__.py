"""Workloads, protocol and timing shared by the benchmarks."""
