"""Samples <-> symbols through the networks, block by block."""
