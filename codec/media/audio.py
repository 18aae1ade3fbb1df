"""Hold audio in memory; read and write WAV, FLAC, OGG (Vorbis, Opus), MP3 and AIFF with libsndfile.

Samples are held at the rate of the codec. Audio of another rate is resampled block by block while it is read
and written, so that the original samples are never in memory as a whole.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from ..errors import MediaError, MediaWarning, UsageError
from .audio_files import (
    AS_WAV,
    AUDIO_FORMATS,
    SAMPLE_BYTES,
    Stated,
    check_fit,
    fitting_tags,
    ogg_ends,
    sound_format,
    stated_samples,
)
from .opening import Guarded, Readable, Writable, created, opened
from .tags import clean

BLOCK = 1 << 16
"""Frames that are read, resampled or written together."""

FLAC_BLOCK = 1 << 12
"""Frames of a FLAC that are read together: if it ends too early, the whole block is lost."""

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
MAX_CHANNELS = 255

MAX_SAMPLES_PER_BYTE, MAX_RESERVED = 512, 1 << 28
"""Most samples, per byte of a file and in all, for which memory is reserved because a header states them."""

_UNSTATED = 1 << 60
"""Least number of frames that means "unknown": libsndfile returns more for files that state none."""

_LARGEST_WAV = 0xFFFFF000
_AGAIN = "copy the file again"
_UNKNOWN = "not an image or audio file that this build can read"


@dataclass(frozen=True, eq=False)
class Audio:
    """Audio at the rate of a codec, with its original rate and length.

    Attributes:
        signal: float32 [C, N] at `signal_rate`, N = ceil(frames * signal_rate / rate); full scale is 1.
        signal_rate: samples a second of `signal`.
        rate: original samples a second, 8,000 to 192,000.
        frames: samples in each channel at that rate.
        tags: "title", "artist", "album", "date", "comment" and so on, as libsndfile names them.
        source: format of its file ("WAV", "FLAC", ...); empty for arrays.

    Raises:
        MediaError: the signal has a wrong type or shape, or is empty.
    """

    signal: np.ndarray
    signal_rate: int
    rate: int
    frames: int
    tags: dict[str, str] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        shape = self.signal.shape
        if self.signal.dtype != np.float32 or len(shape) != 2 or not 1 <= shape[0] <= MAX_CHANNELS:
            raise MediaError(f"signal is {self.signal.dtype} {list(shape)}", "give float32 [C, N]")
        if self.frames < 1 or self.rate < 1 or shape[1] != _length(self.frames, self.rate, self.signal_rate):
            raise MediaError(
                f"{shape[1]} samples at {self.signal_rate} Hz are not {self.frames} at {self.rate} Hz",
                "make it with Audio.of(samples, rate)",
            )

    @property
    def channels(self) -> int:
        """Return the number of channels."""
        return len(self.signal)

    @property
    def seconds(self) -> float:
        """Return the duration."""
        return self.frames / self.rate

    @property
    def samples(self) -> np.ndarray:
        """Return the samples at the original rate: float32 [frames, C]."""
        return np.concatenate(list(self._blocks()))

    @classmethod
    def of(cls, samples: np.ndarray, rate: int, signal_rate: int = 16_000) -> Audio:
        """Make audio from an array.

        Args:
            samples: float [N] or [N, C], full scale 1; or int16, full scale 32,768.
            rate: samples a second, 8,000 to 192,000.
            signal_rate: of the codec.

        Raises:
            MediaError: a wrong type or rate, no samples, or samples that are not finite.
        """
        samples = np.asarray(samples)
        if not isinstance(rate, int | np.integer):
            raise MediaError(f"rate is {rate!r}", "give a whole number of samples a second")
        array = samples[:, None] if samples.ndim == 1 else samples
        if array.ndim != 2 or not (array.dtype == np.int16 or np.issubdtype(array.dtype, np.floating)):
            raise MediaError(f"array is {samples.dtype} {list(samples.shape)}", "give float32 [N] or [N, C]")
        _check(rate, array.shape[1], len(array))
        scale = np.float32(1 / 32768 if array.dtype == np.int16 else 1)

        def block(at: int) -> np.ndarray:
            with np.errstate(over="ignore"):  # numbers beyond float32 are refused as infinite
                return array[at : at + BLOCK].astype(np.float32) * scale

        blocks = (block(at) for at in range(0, len(array), BLOCK))
        signal, frames = _to_signal(blocks, array.shape[1], rate, signal_rate, len(array))
        return cls(signal, signal_rate, rate, frames)

    def without(self, what: Iterable[str]) -> Audio:
        """Return the same audio without some of its metadata.

        Args:
            what: "tags" or "all"; "exif", "xmp" and "icc" are allowed and concern images only.

        Raises:
            UsageError: an unknown word.
        """
        names = {what} if isinstance(what, str) else set(what)
        if unknown := names - {"exif", "xmp", "icc", "tags", "all"}:
            raise UsageError(f"cannot strip {min(unknown)}", "choose from exif, xmp, icc, tags and all")
        return replace(self, tags={}) if names & {"tags", "all"} else self

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """Write the audio to a file, in `format` or by the suffix of `path`.

        An existing file is replaced when the new one is complete.

        Raises:
            MediaError, OSError: as in `write_audio`.
        """
        write_audio(self, path, format)

    def _blocks(self) -> Iterator[np.ndarray]:
        """Yield blocks float32 [n, C] at the original rate, `frames` in all, padded with silence."""
        pieces = (self.signal[:, at : at + BLOCK].T for at in range(0, self.signal.shape[1], BLOCK))
        left = self.frames
        for block in _resampled(pieces, self.channels, self.signal_rate, self.rate):
            yield block[:left]
            left -= len(block[:left])
        while left:
            yield np.zeros((min(left, BLOCK), self.channels), np.float32)
            left -= min(left, BLOCK)


def read_audio(source: Readable, rate: int = 16_000, *, strip: Iterable[str] = ()) -> Audio:
    """Read audio.

    Args:
        source: path, file content, or binary stream.
        rate: samples a second of the resulting signal.
        strip: metadata to leave out.

    Raises:
        MediaError: missing, unreadable, truncated, empty, or samples that are not finite.
        UsageError: an unknown word in `strip`.
    """
    with opened(source) as stream:
        format = sound_format(stream.read(16))
        if not format:
            raise MediaError(_UNKNOWN)
        if format == "OGG" and not ogg_ends(stream):
            raise MediaError("truncated: the last page is missing", _AGAIN)
        stated = stated_samples(stream)
        if stated.changing:
            raise MediaError("an MP3 of changing bitrate that does not state its length", "convert it to WAV")
        size = stream.seek(0, os.SEEK_END)
        stream.seek(0)
        guarded = Guarded(stream, stated.patch)
        try:
            try:
                with _Sequential(guarded) as file:
                    audio = _read(file, rate, stated, size, guarded)
            finally:
                guarded.check()
        except soundfile.LibsndfileError as error:
            raise MediaError(
                f"damaged {format}, or of a kind this build cannot read", f"{_AGAIN}, or convert it to WAV"
            ) from error
        except OSError as error:
            raise MediaError(f"cannot be read: {error.strerror or error}") from error
    return audio.without(strip)


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # libsndfile comes without types
    """File that is read from beginning to end, without seeking.

    The base class seeks after every block, which fails at the end of a FLAC that does not state its length.
    """

    def seekable(self) -> bool:
        """Return False."""
        return False


def _read(file: soundfile.SoundFile, rate: int, stated: Stated, size: int, guarded: Guarded) -> Audio:
    own, channels, expected = file.samplerate, file.channels, file.frames
    _check(own, channels)
    reserved = min(expected, min(size * MAX_SAMPLES_PER_BYTE, MAX_RESERVED) // channels + BLOCK)
    signal, frames = _to_signal(_file_blocks(file, guarded), channels, own, rate, reserved)
    if stated.guessed:
        expected = frames
    if stated.there < stated.size:
        width = channels * SAMPLE_BYTES.get(file.subtype, 0)
        if not width:
            raise MediaError(f"truncated: {stated.there} of {stated.size} bytes of samples", _AGAIN)
        expected = stated.size // width
    if frames < expected < _UNSTATED:
        raise MediaError(f"truncated: {frames} of {expected} frames", _AGAIN)
    _check(own, channels, frames)
    tags = {name: clean(text) for name, text in file.copy_metadata().items()}
    if "software" in tags:  # libsndfile adds its own name every time it writes
        tags["software"] = tags["software"].split(" (libsndfile")[0]
    tags = {name: text for name, text in tags.items() if text}
    return Audio(signal, rate, own, frames, tags, _source(file))


def _source(file: soundfile.SoundFile) -> str:
    names = {"WAVEX": "WAV", "RF64": "WAV", "MPEG": "MP3"}
    return "OPUS" if file.subtype == "OPUS" else names.get(file.format, file.format)


def _check(rate: int, channels: int, frames: int = 1) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise MediaError(f"{rate:,} samples a second", f"resample it to {LOWEST_RATE:,} to {HIGHEST_RATE:,}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise MediaError(f"{channels} channels, limit {MAX_CHANNELS}", "split the file")
    if frames < 1:
        raise MediaError("no samples")


def _file_blocks(file: soundfile.SoundFile, guarded: Guarded) -> Iterator[np.ndarray]:
    count = FLAC_BLOCK if file.format == "FLAC" else BLOCK
    try:
        while len(block := file.read(count, dtype="float32", always_2d=True)):
            yield block
    except soundfile.LibsndfileError:
        # If the file ended within a block, the number of frames gives a better message.
        if not guarded.ended or file.frames >= _UNSTATED:
            raise


def _to_signal(
    blocks: Iterable[np.ndarray], channels: int, rate: int, signal_rate: int, reserved: int
) -> tuple[np.ndarray, int]:
    """Resample blocks [n, C] to a signal float32 [C, N] at `signal_rate`; also return the number of frames.

    Args:
        blocks: at `rate`.
        channels: C.
        rate: samples a second.
        signal_rate: likewise.
        reserved: frames for which memory is allocated at first.
    """
    frames = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal frames
        for block in blocks:
            if not np.isfinite(block).all():
                what = "NaN" if np.isnan(block).any() else "infinite"
                raise MediaError(f"{what} samples", "repair the file first")
            frames += len(block)
            yield block

    # The resampler may round the length differently.
    spare = 1 << 10
    signal = np.zeros((channels, _length(reserved, rate, signal_rate) + spare), np.float32)
    at = 0
    for piece in _resampled(counted(), channels, rate, signal_rate):
        if at + len(piece) > signal.shape[1] - spare // 2:
            signal = np.pad(signal, ((0, 0), (0, signal.shape[1] + len(piece))))
        signal[:, at : at + len(piece)] = piece.T
        at += len(piece)
    return signal[:, : _length(frames, rate, signal_rate)], frames


def _length(frames: int, rate: int, wanted: int) -> int:
    """Return the number of samples at the wanted rate that cover `frames`."""
    return -(-frames * wanted // rate)


def _resampled(blocks: Iterable[np.ndarray], channels: int, rate: int, wanted: int) -> Iterator[np.ndarray]:
    """Resample blocks [n, C]."""
    if rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, wanted, channels, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def write_audio(audio: Audio, target: Writable, format: str | None = None) -> None:
    """Write audio at its original rate.

    Args:
        audio: to write.
        target: path, or binary stream, which is left open and need not be seekable.
        format: "wav", "flac", "ogg", "opus", "mp3" or "aiff"; None: by the suffix of a path.

    Raises:
        MediaError: a format that is not written here, or cannot hold the audio.
        OSError: from the disk or the stream, as it came.

    Warns:
        MediaWarning: samples beyond full scale are clipped; tags that the format cannot hold are left out.
    """
    path = Path(target) if isinstance(target, str | os.PathLike) else Path()
    suffix = "." + format.lower().removeprefix(".") if format else path.suffix.lower()
    if suffix not in AUDIO_FORMATS:
        names = "choose wav, flac, ogg, opus, mp3 or aiff"
        raise MediaError(f"no audio format has the suffix {suffix or '(none)'}", names)
    kind, subtype = AUDIO_FORMATS[suffix]
    if not soundfile.check_format(kind, subtype):
        raise MediaError(f"this build of libsndfile writes no {kind} {subtype}", AS_WAV)
    check_fit(kind, subtype, audio.channels, audio.rate)
    # WAV sizes have 32 bits; longer files become RF64, which reads as WAV.
    if kind == "WAV" and audio.frames * audio.channels * 2 > _LARGEST_WAV:
        kind = "RF64"
    tags, lost = fitting_tags(kind, {name: clean(text) for name, text in audio.tags.items()})
    with created(target) as stream:
        clipped = _write(audio, stream, kind, subtype, tags)
    if lost:
        warnings.warn(f"{kind} cannot hold {', '.join(lost)}: left out", MediaWarning, stacklevel=2)
    if clipped:
        warnings.warn(f"{clipped:,} samples beyond full scale were clipped", MediaWarning, stacklevel=2)


def _write(audio: Audio, stream: BinaryIO, kind: str, subtype: str, tags: dict[str, str]) -> int:
    """Write audio; return the number of samples that were clipped."""
    clipped = 0
    guarded = Guarded(stream)
    try:
        with soundfile.SoundFile(guarded, "w", audio.rate, audio.channels, subtype, format=kind) as file:
            for name, text in tags.items():
                setattr(file, name, text)
            for block in audio._blocks():
                limited = np.clip(block, -1, 1)
                clipped += int(np.count_nonzero(limited != block))
                file.write(limited)
                guarded.check()
    except (soundfile.LibsndfileError, AssertionError) as error:
        guarded.check()
        raise MediaError(f"cannot be written as {kind}: {error}", AS_WAV) from error
    guarded.check()
    return clipped
