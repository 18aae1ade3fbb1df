"""Format figures as text, for logs and terminals."""

from __future__ import annotations

SHOWN = 5
"""Members of a list of names that are shown."""


def text_of(value: object) -> str:
    """Format a figure for people: numbers with four digits, groups of them as "name number", no brackets."""
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return " ".join(f"{name} {text_of(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        if not all(isinstance(one, str) for one in value):
            return ("; " if any(isinstance(one, dict) for one in value) else " ").join(map(text_of, value))
        return f"{len(value)}: {', '.join(value[:SHOWN])}" if value else "0"
    return str(value)
