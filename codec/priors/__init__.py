"""Probability models over codes: integer frequencies, the same on every machine."""
