"""Fused attention for TPUs, written in Pallas."""
