"""Trained weights and their model cards, shipped inside the package."""
