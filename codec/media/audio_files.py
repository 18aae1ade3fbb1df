"""Recognise audio formats, detect truncated files, and check what a format can hold.

libsndfile does none of these.
"""

from __future__ import annotations

import os
from typing import BinaryIO, Literal, NamedTuple

from ..errors import MediaError

AUDIO_FORMATS = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".aiff": ("AIFF", "PCM_16"),
    ".aif": ("AIFF", "PCM_16"),
}
"""Suffix of an output -> libsndfile's names of its format and of the coding of samples."""

AS_WAV = "write it as WAV with --format wav"
"""Hint for audio that a format cannot hold."""

SAMPLE_BYTES = dict(PCM_S8=1, PCM_U8=1, PCM_16=2, PCM_24=3, PCM_32=4, FLOAT=4, DOUBLE=8, ULAW=1, ALAW=1)
"""Bytes per sample of the codings in which it is constant."""

OPUS_RATES = frozenset((8_000, 12_000, 16_000, 24_000, 48_000))
OPUS_RATE = 48_000
"""What other rates are resampled to for Opus."""

_RATES = {
    "OPUS": OPUS_RATES,
    "MPEG_LAYER_III": {8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000},
}
_MOST_CHANNELS = {"FLAC": 8, "MP3": 2}


class _Layout(NamedTuple):
    """Layout of chunks in a family of formats."""

    start: int
    name: int
    size: int
    order: Literal["little", "big"]
    samples: bytes
    header_counts: bool = False
    multiple: int = 2
    before_samples: int = 0


_LAYOUTS = {
    b"RIFF": _Layout(12, 4, 4, "little", b"data"),
    b"RIFX": _Layout(12, 4, 4, "big", b"data"),
    b"RF64": _Layout(12, 4, 4, "little", b"data"),
    b"BW64": _Layout(12, 4, 4, "little", b"data"),
    b"FORM": _Layout(12, 4, 4, "big", b"SSND", before_samples=8),
    b"caff": _Layout(8, 4, 8, "big", b"data", multiple=1, before_samples=4),
    b"riff": _Layout(40, 16, 8, "little", b"data", header_counts=True, multiple=8),
}


class Stated(NamedTuple):
    """Statement of a header about the samples of its file.

    Attributes:
        size: bytes of samples that the header states; 0 if it states none.
        there: bytes of samples that the file has.
        patch: position of a size of 0 that the writer never corrected, and the correct bytes.
        form: position and size of the format chunk of a WAV.
        samples: position and size of the samples of a WAV.
    """

    size: int = 0
    there: int = 0
    patch: tuple[int, bytes] = (0, b"")
    form: tuple[int, int] = (0, 0)
    samples: tuple[int, int] = (0, 0)


def sound_format(head: bytes) -> str:
    """Return the audio format of a file by its first 16 bytes; empty if it is not one that is read here."""
    if head[:4] in (b"RIFF", b"RF64", b"RIFX", b"BW64") and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "MP3"
    starts = {b"fLaC": "FLAC", b"OggS": "OGG", b".snd": "AU", b"caff": "CAF", b"riff": "W64"}
    return starts.get(head[:4], "")


def stated_samples(stream: BinaryIO) -> Stated:
    """Compare the size of samples that a header states with that in the file.

    libsndfile reads truncated uncompressed samples without a warning. Programs that write into a pipe cannot
    know the size beforehand; the placeholders that they write are not statements.
    """
    end = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(16)
    if sound_format(head) == "AU":
        start, size = (int.from_bytes(head[at : at + 4], "big") for at in (4, 8))
        return Stated() if _is_streamed(size, 4) else Stated(size, min(size, max(end - start, 0)))
    layout = _LAYOUTS.get(head[:4])
    if layout is None or not sound_format(head):
        return Stated()
    at, long_size, form = layout.start, 0, (0, 0)
    width = layout.name + layout.size
    while at + width <= end:
        stream.seek(at)
        chunk = stream.read(width)
        name, size = chunk[: layout.name], int.from_bytes(chunk[layout.name :], layout.order)
        size -= width if layout.header_counts else 0
        if name == b"ds64":
            long_size = int.from_bytes(stream.read(16)[8:], "little")
        elif name[:4] == layout.samples:
            stated = _samples(head, layout, at + width, long_size or size, end)
            there = min(long_size or size, end - at - width) or end - at - width
            return stated._replace(form=form, samples=(at + width, there))
        elif name == b"fmt ":
            form = (at + width, size)
        at += width + max(size + -size % layout.multiple, 0)
    return Stated()


def _samples(head: bytes, layout: _Layout, at: int, size: int, end: int) -> Stated:
    """Return the statement of a chunk of samples at `at` with a stated size."""
    whole = int.from_bytes(head[4:8], layout.order) + 8
    if size == 0 and layout.samples == b"data" and layout.size == 4 and at < end != whole:
        return Stated(patch=(at - 4, min(end - at, 0xFFFFFFFF).to_bytes(4, layout.order)))
    if _is_streamed(size, layout.size):
        return Stated()
    at, size = at + layout.before_samples, max(size - layout.before_samples, 0)
    return Stated(size, min(size, max(end - at, 0)))


def _is_streamed(size: int, width: int) -> bool:
    """Tell whether a size is a placeholder: zero, or almost the largest number of its field."""
    if width > 4:
        return size <= 0 or size >> 63 == 1
    return size == 0 or 0x7FFFF000 <= size <= 0x80000000 or size >= 0xFFFFF000


def check_fit(kind: str, subtype: str, channels: int, rate: int) -> None:
    """Refuse audio that a format cannot hold.

    Raises:
        MediaError: too many channels, or a sample rate that the format lacks.
    """
    if channels > _MOST_CHANNELS.get(kind, 255):
        raise MediaError(f"{kind} cannot hold {channels} channels", AS_WAV)
    # Above 16 bits FLAC writes tens of hertz.
    coarse = kind == "FLAC" and rate > 0xFFFF and rate % 10
    if coarse or rate not in _RATES.get(subtype, {rate}):
        name = "Opus" if subtype == "OPUS" else kind
        raise MediaError(f"{name} has no {rate:,} samples a second", AS_WAV)
