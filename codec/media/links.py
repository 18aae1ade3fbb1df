"""Find the parts of an Ogg that was joined from several, of which libsndfile reads the first alone."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..errors import MediaError
from .opening import Spliced, Stream

MAX_LINKS = 10_000
"""Most parts of a file that are read one by one."""

SEARCHED = 1 << 16
"""Bytes that are searched for the first frame of an MP3, or for the next behind something else."""


class Links(NamedTuple):
    """Parts of a file, and warnings about it.

    Attributes:
        streams: each as a file of its own.
        notes: warnings.
    """

    streams: list[Stream]
    notes: list[str]


class _Page(NamedTuple):
    """Position, size, flags and serial number of an Ogg page."""

    at: int
    size: int
    flags: int
    serial: bytes


def _pages(stream: Stream, end: int) -> Iterator[_Page]:
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
    *_, last = _pages(Spliced((stream, start, stop)), stop - start)
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


def flac_of(link: Stream) -> Stream:
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
