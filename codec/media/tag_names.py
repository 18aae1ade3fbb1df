"""Name the tags of ID3, APE and RIFF INFO as Vorbis comments are named, in lower case, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mutagen.apev2
import mutagen.id3

from .tags import Tags

ID3_NAMES = {
    "TIT2": "title",
    "TPE1": "artist",
    "TALB": "album",
    "TPE2": "albumartist",
    "TCOM": "composer",
    "TCON": "genre",
    "TDRC": "date",
    "TRCK": "tracknumber",
    "TPOS": "discnumber",
    "TCOP": "copyright",
    "TSSE": "encoder",
    "TENC": "encodedby",
    "TEXT": "lyricist",
    "TPE3": "conductor",
    "TPE4": "remixer",
    "TIT1": "grouping",
    "TIT3": "subtitle",
    "TBPM": "bpm",
    "TSRC": "isrc",
    "TPUB": "organization",
    "TLAN": "language",
    "TKEY": "initialkey",
    "TCMP": "compilation",
    "TMOO": "mood",
    "TSOA": "albumsort",
    "TSOP": "artistsort",
    "TSOT": "titlesort",
    "TSO2": "albumartistsort",
    "TSOC": "composersort",
    "TDOR": "originaldate",
    "TMED": "media",
    "TOPE": "originalartist",
    "TSST": "discsubtitle",
    "WCOP": "license",
}
INFO_NAMES = {
    "INAM": "title",
    "IART": "artist",
    "IPRD": "album",
    "ICMT": "comment",
    "ICOP": "copyright",
    "ICRD": "date",
    "IGNR": "genre",
    "ITRK": "tracknumber",
    "IPRT": "tracknumber",
    "ISFT": "software",
    "IENG": "engineer",
    "ISBJ": "subject",
    "IKEY": "keywords",
    "ISRC": "source",
    "ITCH": "encodedby",
    "IMUS": "composer",
    "IWRI": "lyricist",
    "ILNG": "language",
}
APE_NAMES = {"album artist": "albumartist", "year": "date", "track": "tracknumber", "disc": "discnumber"}
_FRAMES = {name: frame for frame, name in ID3_NAMES.items()}

PARTS_OF_FILES = {"APIC": "picture", "METADATA_BLOCK_PICTURE": "picture", "COVERART": "picture"}
"""What holds no text, in words."""


def from_id3(frames: Any) -> tuple[Tags, list[str]]:
    """Return the tags of ID3 frames, and the names of what is no text."""
    tags: Tags = {}
    lost: list[str] = []
    for frame in frames.values():
        name, texts = _id3_texts(frame)
        if name:
            tags.setdefault(name, []).extend(texts)
        elif frame.FrameID not in ("COMM", "TXXX", "TLEN", "TFLT"):
            lost.append(PARTS_OF_FILES.get(frame.FrameID, frame.FrameID))
    return tags, lost


def _id3_texts(frame: Any) -> tuple[str, list[str]]:
    kind = frame.FrameID
    if kind in ("TLEN", "TFLT"):
        return "", []
    if kind in ("COMM", "USLT"):
        base = "comment" if kind == "COMM" else "lyrics"
        name = f"{base}:{frame.desc.lower()}" if frame.desc and not frame.desc.isdigit() else base
        return name, [*frame.text] if kind == "COMM" else [frame.text]
    if kind == "TXXX":
        return frame.desc.lower() or "text", [str(text) for text in frame.text]
    if kind == "WXXX":
        return (f"url:{frame.desc.lower()}" if frame.desc else "url"), [frame.url]
    if kind == "UFID":
        owner = frame.owner.lower()
        if "musicbrainz" in owner:
            return "musicbrainz_trackid", [frame.data.decode("latin-1")]
        return "", []
    if kind == "TCON":
        return "genre", [*frame.genres]
    if kind in ("TIPL", "TMCL"):
        return kind.lower(), [": ".join(pair) for pair in frame.people]
    if kind[0] == "T":
        return ID3_NAMES.get(kind, kind.lower()), [str(text) for text in frame.text]
    if kind[0] == "W":
        return ID3_NAMES.get(kind, kind.lower()), [frame.url]
    return "", []


def add_id3(frames: Any, tags: Tags) -> None:
    """Add tags to ID3 frames: every value of every name."""
    for name, texts in tags.items():
        kind = _FRAMES.get(name, "")
        base, _, description = name.partition(":")
        if name in ("tracknumber", "discnumber", "bpm", "compilation") and not all(map(_is_count, texts)):
            kind = ""
        if kind in ("TDRC", "TDOR") and not all(map(_is_date, texts)):
            kind = ""
        if kind == "TCON" and any(text.isdigit() or text[:1] == "(" for text in texts):
            kind = ""
        if base == "comment":
            frames.add(mutagen.id3.COMM(encoding=3, lang="XXX", desc=description, text=texts))
        elif base == "lyrics":
            for number, text in enumerate(texts):
                desc = description or (str(number) if number else "")
                frames.add(mutagen.id3.USLT(encoding=3, lang="XXX", desc=desc, text=text))
        elif kind[:1] == "T":
            frames.add(getattr(mutagen.id3, kind)(encoding=3, text=texts))
        elif kind == "WCOP" and len(texts) == 1 and texts[0].startswith("http") and texts[0].isascii():
            frames.add(mutagen.id3.WCOP(url=texts[0]))
        else:
            frames.add(mutagen.id3.TXXX(encoding=3, desc=name, text=texts))


def _is_count(text: str) -> bool:
    parts = text.split("/")
    return len(parts) <= 2 and all(part.isdigit() and part.isascii() for part in parts)


def _is_date(text: str) -> bool:
    return str(mutagen.id3.ID3TimeStamp(text)) == text


def from_ape(items: Any) -> tuple[Tags, list[str]]:
    """Return the tags of APE items, and the names of what is no text."""
    tags: Tags = {}
    lost: list[str] = []
    for key, value in items.items():
        if isinstance(value, mutagen.apev2.APETextValue | mutagen.apev2.APEExtValue):
            name = key.lower()
            tags.setdefault(APE_NAMES.get(name, name), []).extend(str(value).split("\0"))
        else:
            lost.append("picture" if "cover" in key.lower() else key)
    return tags, lost


def from_comments(comments: list[tuple[str, str]]) -> tuple[Tags, list[str]]:
    """Return the tags of Vorbis comments, and the names of what is no text."""
    tags: Tags = {}
    lost: list[str] = []
    for key, value in comments:
        if key.upper() in PARTS_OF_FILES:
            lost.append(PARTS_OF_FILES[key.upper()])
        elif key.upper() != "COVERARTMIME" and not (key.upper() == "ENCODER" and "libsndfile" in value):
            tags.setdefault(key.lower(), []).append(value)
    return tags, lost


def from_info(fields: list[tuple[bytes, bytes]]) -> Tags:
    """Return the tags of RIFF INFO fields, in UTF-8, or Latin-1 as Windows has it."""
    tags: Tags = {}
    for key, value in fields:
        name = key.decode("latin-1").strip()
        # libsndfile adds its own name every time it writes.
        text = decoded(value).split(" (libsndfile")[0]
        tags.setdefault(INFO_NAMES.get(name, name.lower()), []).append(text)
    return tags


def decoded(value: bytes) -> str:
    """Return a text up to its first zero, in UTF-8 if it can be that, else in Latin-1."""
    value = value.split(b"\0")[0]
    for encoding in ("utf-8", "cp1252"):
        try:
            return value.decode(encoding)
        except UnicodeDecodeError:
            continue
    return value.decode("latin-1")


def comments_of(tags: Tags) -> tuple[list[tuple[str, str]], list[str]]:
    """Return tags as Vorbis comments, and the names that these cannot have."""
    fields: list[tuple[str, str]] = []
    lost: list[str] = []
    for name, texts in tags.items():
        if name and all(" " <= character <= "}" and character != "=" for character in name):
            fields += [(name.upper(), text) for text in texts]
        else:
            lost.append(name)
    return fields, lost


def first_values(tags: Mapping[str, list[str]]) -> dict[str, str]:
    """Return the first value of each tag."""
    return {name: texts[0] for name, texts in tags.items() if texts}
