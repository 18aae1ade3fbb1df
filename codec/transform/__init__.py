"""Transforms, samples <-> symbols: run the networks block by block."""
