"""Symbols <-> payloads: the range coder, the driver, the chunks."""
