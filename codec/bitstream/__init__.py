"""The .vqc format, payloads <-> bytes: header, metadata boxes, chunk table, checksums."""
