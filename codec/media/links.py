"""Find the parts of an Ogg or MP3 that was joined from several, and what lies around them.

libsndfile reads the first part alone, and needs an MP3 to state its number of frames.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, NamedTuple

from ..errors import MediaError

MAX_LINKS = 10_000
"""Most parts of a file that are read one by one."""

SEARCHED = 1 << 16
"""Bytes that are searched for the first frame of an MP3, or for the next behind something else."""


class Spliced(io.RawIOBase):
    """Present stretches of other streams, and bytes, as one stream."""

    def __init__(self, *pieces: tuple[BinaryIO | bytes, int, int]) -> None:
        """Join pieces: a seekable stream or bytes, and the first byte of it and the first behind."""
        self._pieces = [
            (io.BytesIO(source) if isinstance(source, bytes) else source, start, stop)
            for source, start, stop in pieces
        ]
        self._size = sum(stop - start for _, start, stop in pieces)
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        if at < 0:
            raise ValueError("before the beginning")
        self._at = at
        return at

    def read(self, count: int | None = -1) -> bytes:
        """Read at most `count` bytes."""
        wanted = max(self._size - self._at, 0)
        wanted = wanted if count is None or count < 0 else min(wanted, count)
        found, offset = [], self._at
        for source, start, stop in self._pieces:
            if wanted and offset < stop - start:
                source.seek(start + offset)
                data = source.read(min(wanted, stop - start - offset))
                found.append(data)
                wanted -= len(data)
                offset = 0
            else:
                offset -= min(offset, stop - start)
        result = b"".join(found)
        self._at += len(result)
        return result


class Links(NamedTuple):
    """Parts of a file, and what is to be told about it.

    Attributes:
        streams: each as a file of its own.
        notes: warnings.
    """

    streams: list[Any]
    notes: list[str]


class _Page(NamedTuple):
    """Position, size, flags and serial number of an Ogg page."""

    at: int
    size: int
    flags: int
    serial: bytes


def _pages(stream: BinaryIO, end: int) -> Iterator[_Page]:
    """Yield the pages of an Ogg; the last one may reach beyond the end."""
    at = 0
    while at < end:
        stream.seek(at)
        head = stream.read(27 + 255)
        if len(head) >= 27 and head[:4] == b"OggS" and head[4] == 0 and head[5] <= 7:
            size = 27 + head[26] + sum(head[27 : 27 + head[26]])
            yield _Page(at, size, head[5], head[14:18])
            at += size
            continue
        stream.seek(at + 1)
        while block := stream.read(SEARCHED):
            found = block.find(b"OggS")
            at = stream.tell() - len(block) + found
            if found >= 0:
                break
            if len(block) < SEARCHED:
                return
            stream.seek(-3, os.SEEK_CUR)
        else:
            return


def ogg_links(stream: BinaryIO) -> Links:
    """Find the links of a chained Ogg.

    Raises:
        MediaError: the last page is not complete, or there are too many links.
    """
    end = stream.seek(0, os.SEEK_END)
    spans: list[list[int]] = []
    notes: list[str] = []
    began, last, behind = True, None, 0
    unended: set[bytes] = set()
    flagless = False
    for page in _pages(stream, end):
        first = bool(page.flags & 2)
        if first and (not began or not spans):
            flagless |= bool(unended)
            unended = set()
            spans.append([page.at, page.at])
        began = first
        if not spans:
            continue
        (unended.discard if page.flags & 4 else unended.add)(page.serial)
        spans[-1][1] = min(page.at + page.size, end)
        last, behind = page, page.at + page.size
        if len(spans) > MAX_LINKS:
            raise MediaError(f"an Ogg of more than {MAX_LINKS:,} parts", "split it")
    stream.seek(min(behind, end))
    rest = stream.read(SEARCHED) if behind < end else b""
    cut = behind > end or (bool(unended) and bool(rest) and b"OggS".startswith(rest[:4]))
    if last is None or cut:
        raise MediaError("truncated: the last page is missing", "copy the file again")
    if flagless or unended:
        notes.append("the Ogg has no end flag: if it was cut between two pages, its end is missing")
    if rest and rest[:3] != b"TAG" and rest[:8] != b"APETAGEX" and rest.strip(b"\0"):
        notes.append(f"{end - behind:,} bytes behind the last page: left out")
    return Links([_ended(stream, start, stop) for start, stop in spans], notes)


def _ended(stream: BinaryIO, start: int, stop: int) -> Spliced:
    """Present a link of an Ogg with the end flag at its last page, without which libsndfile reads no Opus."""
    *_, last = _pages(Spliced((stream, start, stop)), stop - start)  # type: ignore[arg-type]
    at = start + last.at
    if last.flags & 4 or at == start:
        return Spliced((stream, start, stop))
    stream.seek(at)
    page = bytearray(stream.read(last.size))
    page[5] |= 4
    page[22:26] = bytes(4)
    checksum = 0
    for byte in page:
        checksum = (checksum << 8 & 0xFFFFFFFF) ^ _CHECKSUMS[checksum >> 24 ^ byte]
    page[22:26] = checksum.to_bytes(4, "little")
    return Spliced((stream, start, at), (bytes(page), 0, len(page)))


def _checksum(byte: int) -> int:
    value = byte << 24
    for _ in range(8):
        value = (value << 1 & 0xFFFFFFFF) ^ (0x04C11DB7 if value >> 31 else 0)
    return value


_CHECKSUMS = tuple(map(_checksum, range(256)))
"""CRC of each byte, by the polynomial of Ogg."""


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
    kinds = []
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
    kind: Any = None
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


def flac_of(link: Any) -> Any:
    """Return the FLAC within an Ogg, taken out of its pages, or the stream as it is where there is none."""
    link.seek(0)
    head = link.read(27 + 255 + 51)
    if b"\x7fFLAC" not in head[27 : 27 + 255 + 5]:
        return link
    out = tempfile.TemporaryFile()  # noqa: SIM115 (in use as long as the stream)
    serial, first, end = head[14:18], True, link.seek(0, os.SEEK_END)
    for page in _pages(link, end):
        if page.serial != serial:
            continue
        link.seek(page.at)
        content = link.read(page.size)
        data = content[27 + content[26] :]
        # The first packet: its name, version and count of packets, then a FLAC's beginning.
        out.write(data[9:] if first else data)
        first = False
    return out
