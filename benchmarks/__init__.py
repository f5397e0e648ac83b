"""Benchmarks: one script per question, each prints JSON lines."""
