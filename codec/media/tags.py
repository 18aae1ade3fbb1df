"""Clean audio tags, pack them into the bytes of a metadata box, and unpack them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping

from ..errors import DamagedError, LimitError

MAX_TAGS = 2**20
"""Largest box, in bytes. Usual tags take a hundred; a parser needs twenty times the size of its input."""

Tags = dict[str, list[str]]
"""Name of a tag, in lower case -> its values, in their order."""


def clean(text: str) -> str:
    """Remove characters that control a terminal or cannot be encoded; keep line ends and tabs."""
    return "".join(filter(_is_plain, text)).strip()


BIDIRECTIONAL = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that reverse the direction of writing in a terminal."""


def _is_plain(character: str) -> bool:
    if character in BIDIRECTIONAL:
        return False
    return character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cs")


def listed(tags: Mapping[str, str | Iterable[str]]) -> Tags:
    """Return the tags with a list of values each, a single text as a list of one."""
    return {name: [texts] if isinstance(texts, str) else [*texts] for name, texts in tags.items()}


def cleaned(tags: Mapping[str, str | Iterable[str]]) -> Tags:
    """Return the tags with clean names and values; those of which nothing is left are left out."""
    result: Tags = {}
    for name, texts in listed(tags).items():
        if values := [text for text in map(clean, texts) if text]:
            result.setdefault(clean(name), []).extend(values)
    result.pop("", None)
    return result


def merged(first: Tags, *others: Tags) -> Tags:
    """Return the tags of several sources, each value once; the first source decides the order."""
    result = {name: [*values] for name, values in first.items()}
    for tags in others:
        for name, values in tags.items():
            mine = result.setdefault(name, [])
            # Short fields, such as those of ID3v1, hold the beginning of a text.
            mine += [text for text in values if not any(other.startswith(text) for other in mine)]
    return result


def pack_tags(tags: Mapping[str, str | Iterable[str]]) -> bytes | None:
    """Clean and pack tags; None if nothing is left.

    Raises:
        LimitError: the box would exceed MAX_TAGS bytes.
    """
    texts = cleaned(tags)
    box = json.dumps(texts, ensure_ascii=False, sort_keys=True).encode()
    if len(box) > MAX_TAGS:
        raise LimitError(f"tags of {len(box):,} bytes, limit {MAX_TAGS:,}", "encode it with --strip tags")
    return box if texts else None


def unpack_tags(box: bytes) -> Tags:
    """Undo `pack_tags`; a value may also be a single text.

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
        for name, texts in tags.items():
            values = [texts] if isinstance(texts, str) else texts
            if not isinstance(values, list) or not values:
                raise ValueError("not a list of texts")
            for text in (name, *values):
                if not isinstance(text, str) or not text or not all(map(_is_plain, text)):
                    raise ValueError("not a plain text")
    except (ValueError, RecursionError) as error:
        raise DamagedError("damaged in box tags", "decode the undamaged part with --salvage") from error
    return listed(tags)
