"""Find the parts of an MP3 that was joined from several, and what lies around them.

libsndfile reads the first part alone, and needs each to state its number of frames.
"""

from __future__ import annotations

import os
from typing import BinaryIO, NamedTuple

from ..errors import MediaError
from .links import MAX_LINKS, SEARCHED, Links
from .opening import Spliced

_KBPS = (
    (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)


class _Frame(NamedTuple):
    """Size and kind of an MP3 frame; frames of another kind do not belong to the same stream."""

    size: int
    kind: tuple[int, int, bool]


def _frame(head: bytes) -> _Frame | None:
    """Parse the header of a frame of layer III; None if it is none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
        return None
    number, version, rate = head[2] >> 4, head[1] >> 3 & 3, head[2] >> 2 & 3
    if version == 1 or number in (0, 15) or rate == 3:
        return None
    # ISO 11172-3, 2.4.3.1; half as many samples in a frame at the lower rates of 13818-3.
    hertz = (44_100, 48_000, 32_000)[rate] >> (3 - version if version else 2)
    kbps = _KBPS[version == 3][number - 1]
    size = (144_000 if version == 3 else 72_000) * kbps // hertz + (head[2] >> 1 & 1)
    return _Frame(size, (version, rate, head[3] >> 6 == 3))


def tag_size(stream: BinaryIO, at: int, end: int) -> int:
    """Return the size of the tag that begins at a position, at most what is there; 0 if there is none."""
    stream.seek(at)
    head = stream.read(32)
    size = 0
    if head[:3] == b"ID3" and len(head) >= 10 and all(byte < 0x80 for byte in head[6:10]):
        size = 10 + sum(byte << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
        size += 10 if head[5] & 0x10 else 0
    elif head[:3] == b"TAG" and end - at >= 128:
        size = 128
    elif head[:8] == b"APETAGEX" and len(head) == 32:
        size = int.from_bytes(head[12:16], "little") + (32 if head[23] & 0x20 else 0)
    return min(size, end - at)


def first_frame(stream: BinaryIO, at: int, end: int) -> int | None:
    """Return the position of the next two frames of one kind, or of one at the very end; None if none."""
    stream.seek(at)
    block = stream.read(min(SEARCHED, end - at))
    found = block.find(b"\xff")
    while found >= 0:
        frame = _frame(block[found : found + 4])
        if frame is not None and _goes_on(stream, at + found + frame.size, end, frame):
            return at + found
        found = block.find(b"\xff", found + 1)
    return None


def _goes_on(stream: BinaryIO, at: int, end: int, frame: _Frame) -> bool:
    """Tell whether behind a frame there is one of the same kind, a tag, or the end."""
    if at >= end - 4 or tag_size(stream, at, end):
        return True
    stream.seek(at)
    following = _frame(stream.read(4))
    return following is not None and following.kind == frame.kind


def mp3_begins(stream: BinaryIO, end: int) -> bool:
    """Tell whether there are four frames of one kind in a row near the beginning of a stream."""
    at = first_frame(stream, 0, end)
    kinds: list[tuple[int, int, bool]] = []
    while at is not None and len(kinds) < 4:
        frame = _frame(_peek(stream, at))
        if frame is None:
            break
        kinds.append(frame.kind)
        at += frame.size
    return len(kinds) == 4 and len(set(kinds)) == 1


class _Span:
    """A stretch of MP3 frames that belong together, and how many its first frame states."""

    def __init__(self, start: int, head: bytes, stated: int | None) -> None:
        self.start, self.stop, self.head = start, start, head
        self.stated, self.frames = stated, 0


def mp3_links(stream: BinaryIO, start: int = 0, stop: int | None = None) -> Links:
    """Find the MP3 streams of a file, of a part of it from `start` to `stop`.

    A stream that states its number of frames ends with them, another one with a tag or a frame of another
    kind behind it. What states no number is given one.

    Raises:
        MediaError: no frames, or too many streams.
    """
    end = stream.seek(0, os.SEEK_END) if stop is None else stop
    at, junk = start, 0
    spans: list[_Span] = []
    current: _Span | None = None
    kind: tuple[int, int, bool] | None = None
    while at < end:
        stream.seek(at)
        head = stream.read(4)
        frame = _frame(head)
        if frame is not None and current is None and not _goes_on(stream, at + frame.size, end, frame):
            frame = None
        if frame is None:
            if size := tag_size(stream, at, end):
                at, current = at + size, None
                continue
            found = first_frame(stream, at, end)
            if found is None:
                # Silence of a file system, and cut frames, are no sound.
                junk += end - at if current is None or current.stated is None else 0
                break
            junk, at = junk + max(found - at, 1), max(found, at + 1)
            continue
        stream.seek(at)
        states, count = _stated(stream.read(min(frame.size, 200)))
        finished = current is not None and current.stated and current.frames >= current.stated
        if current is None or states or frame.kind != kind or finished:
            last = at + frame.size >= end or _frame(_peek(stream, at + frame.size)) is None
            if finished and last and not states and current is not None:
                # Some encoders do not count the frame that states the number.
                current.stop = min(at + frame.size, end)
                at += frame.size
                continue
            current = _Span(at + (frame.size if states and not count else 0), head, count or None)
            spans.append(current)
            current.frames -= 1 if states else 0
            kind = frame.kind
            if len(spans) > MAX_LINKS:
                raise MediaError(f"an MP3 of more than {MAX_LINKS:,} parts", "split it")
        current.frames += at + frame.size <= end
        at += frame.size
        current.stop = min(at, end)
    spans = [span for span in spans if span.frames > 0 or span.stated]
    if not spans or junk > sum(span.stop - span.start for span in spans):
        raise MediaError("damaged MP3, or of a kind this build cannot read", "convert it to WAV")
    notes = [f"{junk:,} bytes that are no MP3: left out"] if junk else []
    if at > end and not spans[-1].stated:
        notes.append("the last frame of the MP3 is cut: left out")
    return Links([_as_file(stream, span) for span in spans], notes)


def _peek(stream: BinaryIO, at: int) -> bytes:
    stream.seek(at)
    return stream.read(4)


def _stated(frame: bytes) -> tuple[bool, int]:
    """Tell whether a frame states the number of frames, and the number; 0 if it leaves it open."""
    for name in (b"Xing", b"Info"):
        if (at := frame.find(name, 4, 48)) > 0:
            known = frame[at + 7 : at + 8]
            return True, int.from_bytes(frame[at + 8 : at + 12], "big") if known and known[0] & 1 else 0
    if frame[36:40] == b"VBRI":
        return True, int.from_bytes(frame[50:54], "big")
    return False, 0


def _as_file(stream: BinaryIO, span: _Span) -> Spliced:
    """Present MP3 frames as a file that states their number."""
    if span.stated:
        return Spliced((stream, span.start, span.stop))
    for number in range(1, 15):
        head = bytes((0xFF, span.head[1] | 1, number << 4 | span.head[2] & 0x0C, span.head[3]))
        frame = _frame(head)
        if frame is not None and frame.size >= 200:
            break
    version, _, mono = frame.kind if frame else (3, 0, False)
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    size = frame.size if frame else 417
    info = head + bytes(side) + b"Info\0\0\0\3" + span.frames.to_bytes(4, "big")
    info += (size + span.stop - span.start).to_bytes(8, "big")[4:]
    return Spliced((info.ljust(size, b"\0"), 0, size), (stream, span.start, span.stop))
