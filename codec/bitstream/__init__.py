"""Payloads <-> bytes: header, metadata boxes, chunk table, checksums."""
