"""Read the tags of audio files and write them, every value of every field, with mutagen."""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import mutagen
import mutagen.aiff
import mutagen.apev2
import mutagen.flac
import mutagen.id3
import mutagen.oggopus
import mutagen.oggvorbis
import mutagen.wave

from .opening import Stream
from .tag_names import add_id3, comments_of, first_values, from_ape, from_comments, from_id3, from_info
from .tags import Tags, cleaned, merged

MAX_FIELD = 1 << 24
"""Longest chunk of metadata that is read."""

_UNREADABLE = (mutagen.MutagenError, ValueError, KeyError, IndexError, EOFError, struct.error, OverflowError)
"""What a parser of tags raises for a damaged one; it must not keep the samples from being read."""

_SILENT_CHUNKS = {"fmt", "data", "fact", "PEAK", "JUNK", "junk", "FLLR", "PAD", "LIST", "ds64", "id3", "ID3"}
_SILENT_CHUNKS |= {
    "COMM",
    "SSND",
    "FVER",
    "NAME",
    "AUTH",
    "(c)",
    "ANNO",
    "DISP",
    "afsp",
    "slnt",
}
_LOST_CHUNKS = {
    "bext": "broadcast data (bext)",
    "cue": "cue points",
    "smpl": "sampler loops",
    "MARK": "markers",
    "APPL": "application data",
}
_INFO = {"title", "artist", "comment", "copyright", "software", "album", "date", "genre", "tracknumber"}
_TEXT_CHUNKS = {"title", "artist", "comment", "copyright", "software"}
_LONGEST = {"WAV": 2045, "RF64": 2045, "AIFF": 8189}
"""With longer tags libsndfile drops all tags of a WAV, and writes an AIFF that it cannot read."""


def read_tags(stream: BinaryIO, format: str, links: list[Stream]) -> tuple[Tags, list[str]]:
    """Read the tags of an audio file.

    Args:
        stream: the whole file.
        format: "WAV", "AIFF", "FLAC", "OGG" or "MP3"; others have none that are read here.
        links: the parts of the file, as streams of their own.

    Returns:
        The tags, and in words what else there was that is not kept.
    """
    found: list[tuple[Tags, list[str]]] = []
    if format in ("WAV", "AIFF"):
        found += [_chunks(stream, format)]
    elif format in ("FLAC", "OGG"):
        found += [_safely(partial(_comments, link, format)) for link in links]
    if format in ("FLAC", "MP3"):
        found += [_safely(partial(_id3, stream)), _safely(partial(_ape, stream))]
    tags = merged({}, *(tags for tags, _ in found))
    lost = [name for _, names in found for name in names]
    return cleaned(tags), [*dict.fromkeys(lost)]


def _safely(read: Callable[[], tuple[Tags, list[str]]]) -> tuple[Tags, list[str]]:
    try:
        return read()
    except _UNREADABLE as error:
        # Nothing is there, rather than something that cannot be read.
        missing = isinstance(error, mutagen.id3.ID3NoHeaderError | mutagen.apev2.APENoHeaderError)
        return {}, [] if missing else ["damaged tags"]


def _id3(stream: BinaryIO) -> tuple[Tags, list[str]]:
    stream.seek(0)
    return from_id3(mutagen.id3.ID3(stream))


def _ape(stream: BinaryIO) -> tuple[Tags, list[str]]:
    stream.seek(0)
    return from_ape(mutagen.apev2.APEv2(stream))


def _comments(stream: Stream, format: str) -> tuple[Tags, list[str]]:
    stream.seek(0)
    if format == "FLAC" or stream.read(4) == b"fLaC":
        stream.seek(0)
        file: Any = mutagen.flac.FLAC(stream)
        tags, lost = from_comments(file.tags or [])
        lost += ["picture"] * bool(file.pictures) + ["cue sheet"] * (file.cuesheet is not None)
        codes = {block.code for block in file.metadata_blocks}
        return tags, lost + ["application data"] * (2 in codes)
    stream.seek(0)
    head = stream.read(64)
    stream.seek(0)
    kind: Any = mutagen.oggopus.OggOpus if b"OpusHead" in head else mutagen.oggvorbis.OggVorbis
    file = kind(stream)
    return from_comments(file.tags or [])


def _chunks(stream: BinaryIO, format: str) -> tuple[Tags, list[str]]:
    """Return the tags in the chunks of a WAV or AIFF: ID3 first, then the fields of the format itself."""
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    order = "big" if stream.read(4) in (b"FORM", b"RIFX") else "little"
    id3: list[tuple[Tags, list[str]]] = []
    fields: list[tuple[bytes, bytes]] = []
    lost: list[str] = []
    at, long_size = 12, 0
    while at + 8 <= end:
        stream.seek(at)
        name = stream.read(4).decode("latin-1").strip()
        size = int.from_bytes(stream.read(4), order)  # type: ignore[arg-type]
        content = stream.read(min(size, MAX_FIELD)) if name not in ("data", "SSND") else b""
        if name == "ds64":
            long_size = int.from_bytes(content[8:16], "little")
        elif name == "data" and size == 0xFFFFFFFF:
            size = long_size
        if name in ("id3", "ID3"):
            id3.append(_safely(partial(_id3_of, content)))
        elif name == "LIST" and content[:4] == b"INFO":
            fields += _fields(content[4:], order)
        elif name == "APPL" and content[:4] == b"m3ga":  # libsndfile's
            fields.append((b"ISFT", content[4:]))
        elif name in _AIFF_NAMES:
            fields.append((_AIFF_NAMES[name], content))
        elif name == "LIST" and content[:4] == b"adtl":
            lost.append("labels of cue points")
        elif name in _LOST_CHUNKS or name not in _SILENT_CHUNKS and name.isprintable():
            lost.append(_LOST_CHUNKS.get(name, f"chunk {name}"))
        at += 8 + size + size % 2
    return merged({}, *(tags for tags, _ in id3), from_info(fields)), [n for _, ns in id3 for n in ns] + lost


_AIFF_NAMES = {"NAME": b"INAM", "AUTH": b"IART", "(c)": b"ICOP", "ANNO": b"ICMT"}


def _id3_of(content: bytes) -> tuple[Tags, list[str]]:
    return from_id3(mutagen.id3.ID3(io.BytesIO(content)))


def _fields(content: bytes, order: str) -> list[tuple[bytes, bytes]]:
    at, found = 0, []
    while at + 8 <= len(content):
        size = int.from_bytes(content[at + 4 : at + 8], order)  # type: ignore[arg-type]
        found.append((content[at : at + 4], content[at + 8 : at + 8 + size]))
        at += 8 + size + size % 2
    return found


def plain_fields(kind: str, tags: Tags) -> dict[str, str]:
    """Return the tags that libsndfile writes itself: the first values, in WAV and AIFF alone."""
    held = {"WAV": _INFO, "RF64": _INFO, "AIFF": _TEXT_CHUNKS}.get(kind, set())
    longest = _LONGEST.get(kind, 0)
    return {n: text for n, text in first_values(tags).items() if n in held and len(text.encode()) <= longest}


def write_tags(stream: BinaryIO, kind: str, subtype: str, tags: Tags) -> list[str]:
    """Write the tags into a complete audio file; return the names of those that it cannot hold."""
    plain = {name: [text] for name, text in plain_fields(kind, tags).items()}
    if kind == "RF64":
        return _unwritten(tags, plain)
    if not tags or plain == tags:
        return []
    stream.seek(0)
    file: Any
    lost: list[str] = []
    if kind in ("FLAC", "OGG"):
        makers = {"OPUS": mutagen.oggopus.OggOpus, "VORBIS": mutagen.oggvorbis.OggVorbis}
        file = makers.get(subtype, mutagen.flac.FLAC)(stream)
        if file.tags is None:
            file.add_tags()
        fields, lost = comments_of(tags)
        file.tags.clear()
        file.tags.extend(fields)
    elif kind == "MP3":
        file = mutagen.id3.ID3()
        add_id3(file, tags)
    else:
        file = (mutagen.wave.WAVE if kind == "WAV" else mutagen.aiff.AIFF)(stream)
        if file.tags is None:
            file.add_tags()
        add_id3(file.tags, tags)
    stream.seek(0)
    file.save(stream)
    return lost


def _unwritten(tags: Tags, written: Tags) -> list[str]:
    return [name for name, texts in tags.items() if texts != written.get(name)]
