"""Metrics: quality of reconstructions, and use of a codebook."""
