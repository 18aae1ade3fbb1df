"""Pack audio tags into the bytes of a metadata box, and unpack them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping

from ..errors import DamagedError, LimitError

MAX_TAGS = 2**20
"""Largest box, in bytes. Usual tags take a hundred; a parser needs twenty times the size of its input."""


def clean(text: str) -> str:
    """Remove characters that control a terminal or cannot be encoded; keep line ends and tabs."""
    return "".join(filter(_is_plain, text)).strip()


BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that reverse the direction of writing in a terminal."""


def _is_plain(character: str) -> bool:
    if character in BIDIRECTIONAL:
        return False
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")


def pack_tags(tags: Mapping[str, str]) -> bytes | None:
    """Clean and pack tags; None if nothing is left.

    Raises:
        LimitError: the box would exceed MAX_TAGS bytes.
    """
    texts = {clean(name): clean(text) for name, text in tags.items() if clean(name) and clean(text)}
    box = json.dumps(texts, ensure_ascii=False, sort_keys=True).encode()
    if len(box) > MAX_TAGS:
        raise LimitError(f"tags of {len(box):,} bytes, limit {MAX_TAGS:,}", "encode it with --strip tags")
    return box if texts else None


def unpack_tags(box: bytes) -> dict[str, str]:
    """Undo `pack_tags`.

    Raises:
        DamagedError: not a JSON object of plain texts, in UTF-8, of at most MAX_TAGS bytes.
    """
    try:
        if len(box) > MAX_TAGS:
            raise ValueError(f"{len(box):,} bytes")
        # Decoded here: json.loads would take UTF-16 as well.
        tags = json.loads(box.decode())
        if not isinstance(tags, dict):
            raise ValueError("not an object")
        for text in (*tags, *tags.values()):
            if not isinstance(text, str) or not text or not all(map(_is_plain, text)):
                raise ValueError("not a plain text")
    except (ValueError, RecursionError) as error:
        raise DamagedError("damaged in box tags", "--salvage") from error
    return tags
