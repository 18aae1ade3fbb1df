"""Read audio files with libsndfile: every part of them, or an error or a warning about what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import soundfile

from ..errors import MediaError, MediaWarning, warn
from .audio import Audio
from .audio_files import SAMPLE_BYTES, Stated, sound_format, stated_samples
from .channels import from_vorbis, has_vorbis_order, unusual_mask
from .links import Links, flac_of, ogg_links
from .mp3 import mp3_begins, mp3_links, tag_size
from .opening import Guarded, Readable, Spliced, Stream, opened
from .resampling import BLOCK, check, to_signal
from .tag_files import read_tags
from .tags import Tags, cleaned

FLAC_BLOCK = 1 << 12
"""Frames of a FLAC that are read together: if it ends too early, the whole block is lost."""

MAX_SAMPLES_PER_BYTE, MAX_RESERVED = 512, 1 << 28
"""Most samples, per byte of a file and in all, for which memory is reserved because a header states them."""

_UNSTATED = 1 << 60
"""Least number of frames that means "unknown": libsndfile returns more for files that state none."""

_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"BM", b"P5", b"P6")
"""Beginnings of images, which are not searched for the frames of an MP3."""

_MP3_IN_WAV = 0x55
_AGAIN = "copy the file again"
_UNKNOWN = "not an image or audio file that this build can read"


def read_audio(source: Readable, rate: int = 16_000, *, strip: Iterable[str] = ()) -> Audio:
    """Read audio.

    Args:
        source: path, file content, or binary stream.
        rate: samples a second of the resulting signal.
        strip: metadata to leave out.

    Raises:
        MediaError: missing, unreadable, truncated, empty, or samples that are not finite.
        UsageError: an unknown word in `strip`.

    Warns:
        MediaWarning: a part of the file, or of its metadata, is left out.
    """
    strip = [strip] if isinstance(strip, str) else [*strip]
    with opened(source) as stream:
        format = format_of(stream)
        if not format:
            raise MediaError(_UNKNOWN, "convert it to PNG or WAV")
        try:
            links, stated = _links(stream, format)
            tags, lost = ({}, []) if {"tags", "all"} & {*strip} else read_tags(stream, format, links.streams)
            reader = _Reader(links.streams, format, stated, stream.seek(0, os.SEEK_END))
            try:
                audio = reader.read(rate, tags)
            finally:
                for link in links.streams:
                    if link is not stream:
                        link.close()
        except soundfile.LibsndfileError as error:
            raise MediaError(
                f"damaged {format}, or of a kind this build cannot read", f"{_AGAIN}, or convert it to WAV"
            ) from error
        except OSError as error:
            raise MediaError(f"cannot be read: {error.strerror or error}", _AGAIN) from error
        for note in links.notes:
            warn(note, MediaWarning)
        if lost:
            warn(f"{', '.join(lost)}: left out", MediaWarning)
    return audio.without(strip)


def format_of(stream: BinaryIO) -> str:
    """Return the audio format of a stream at position 0, also behind an ID3 tag or some junk; else empty."""
    head = stream.read(16)
    format = sound_format(head)
    end = stream.seek(0, os.SEEK_END)
    if not format and not head.startswith(_IMAGES) and head[4:8] != b"ftyp" and mp3_begins(stream, end):
        format = "MP3"
    if format == "MP3":
        # FLAC and AAC may begin with the tag that MP3 begins with.
        at = tag_size(stream, 0, end)
        stream.seek(at)
        format = sound_format(stream.read(16)) or format
    stream.seek(0)
    return format


def _links(stream: BinaryIO, format: str) -> tuple[Links, Stated]:
    """Return the parts of a file as streams that libsndfile can read, and what its header states."""
    end = stream.seek(0, os.SEEK_END)
    if format == "OGG":
        links = ogg_links(stream)
        return Links([flac_of(link) for link in links.streams], links.notes), Stated()
    if format == "MP3":
        return mp3_links(stream), Stated()
    if format == "FLAC":
        start = tag_size(stream, 0, end)
        stream.seek(max(end - 128, 0))
        stop = end - 128 if stream.read(3) == b"TAG" else end
        return Links([Spliced((stream, start, stop))], []), Stated()
    stated = stated_samples(stream)
    at, size = stated.form
    stream.seek(at)
    if size and int.from_bytes(stream.read(2), "little") == _MP3_IN_WAV:
        at, size = stated.samples
        return mp3_links(stream, at, at + size), Stated()
    notes = []
    if size and (mask := unusual_mask(stream, at, size)):
        notes.append(f"speakers {mask:#x} of the WAV: their order is kept, not which they are")
    stream.seek(0)
    if stream.read(4) == b"BW64":
        return Links([Spliced((b"RF64", 0, 4), (stream, 4, end))], notes), stated
    return Links([stream], notes), stated


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # libsndfile comes without types
    """File that is read from beginning to end, without seeking.

    The base class seeks after every block, which fails at the end of a FLAC that does not state its length.
    """

    def seekable(self) -> bool:
        """Return False."""
        return False


class _Reader:
    """Reader of all parts of a file, one behind the other."""

    def __init__(self, streams: list[Stream], format: str, stated: Stated, size: int) -> None:
        """Read the parts of a file, of a format and a size in bytes, with what its header states."""
        self.streams, self.format, self.stated, self.size = streams, format, stated, size
        self.file: soundfile.SoundFile = None
        self.guarded = Guarded(streams[0])
        self.frames, self.expected = 0, 0

    def read(self, rate: int, tags: Tags) -> Audio:
        """Return the audio, resampled to a rate, with tags."""
        try:
            self._open(self.streams[0])
            file = self.file
            own, channels = file.samplerate, file.channels
            check(own, channels)
            tags = self._with_own(file, tags)
            most = min(self.size * MAX_SAMPLES_PER_BYTE, MAX_RESERVED)
            reserved = min(file.frames, most // channels + BLOCK)
            signal, frames = to_signal(self._blocks(own, channels), channels, own, rate, reserved)
        finally:
            if self.file is not None:
                self.file.close()
            self.guarded.check()
        if self.stated.there < self.stated.size:
            width = channels * SAMPLE_BYTES.get(file.subtype, 0)
            if not width:
                raise MediaError(
                    f"truncated: {self.stated.there} of {self.stated.size} bytes of samples", _AGAIN
                )
            self.expected = self.stated.size // width
        if frames < self.expected < _UNSTATED:
            raise MediaError(f"truncated: {frames} of {self.expected} frames", _AGAIN)
        check(own, channels, frames)
        return Audio(signal, rate, own, frames, tags, _source(file, self.format))

    def _open(self, stream: Stream) -> None:
        stream.seek(0)
        if self.file is not None:
            self.file.close()
        self.guarded = Guarded(stream, self.stated.patch)
        self.file = _Sequential(self.guarded)

    def _with_own(self, file: soundfile.SoundFile, tags: Tags) -> Tags:
        """Return the tags, or those that libsndfile finds in formats whose tags it alone knows."""
        if self.format not in ("WAV", "AIFF", "FLAC", "OGG", "MP3"):
            tags = cleaned({n: text.split(" (libsndfile")[0] for n, text in file.copy_metadata().items()})
        return tags

    def _blocks(self, rate: int, channels: int) -> Iterator[np.ndarray]:
        for number, stream in enumerate(self.streams):
            if number:
                self._open(stream)
            if (self.file.samplerate, self.file.channels) != (rate, channels):
                raise MediaError(
                    f"a file of several parts: {channels} channels at {rate:,} Hz, then "
                    f"{self.file.channels} at {self.file.samplerate:,}",
                    "split it, or convert it to WAV",
                )
            stream_head = b""
            if self.format == "OGG":
                at = stream.tell()
                stream.seek(0)
                stream_head = stream.read(128)
                stream.seek(at)
            reorder = has_vorbis_order(stream_head)
            self.expected += self.file.frames
            for block in self._file_blocks():
                yield from_vorbis(block) if reorder else block

    def _file_blocks(self) -> Iterator[np.ndarray]:
        file = self.file
        count, left = FLAC_BLOCK if file.format == "FLAC" else BLOCK, file.frames
        try:
            # What lies behind the last frame may be anything.
            while left and len(block := file.read(min(count, left), dtype="float32", always_2d=True)):
                left -= len(block)
                yield block
        except soundfile.LibsndfileError:
            # If the file ended within a block, the number of frames gives a better message.
            if not self.guarded.ended or file.frames >= _UNSTATED:
                raise


def _source(file: soundfile.SoundFile, format: str) -> str:
    if file.subtype == "OPUS" or format in ("OGG", "MP3"):
        return "OPUS" if file.subtype == "OPUS" else format
    names = {"WAVEX": "WAV", "RF64": "WAV", "MPEG": "MP3"}
    return names.get(file.format, str(file.format))
