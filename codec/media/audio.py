"""A sound in memory, and its ways in and out: WAV, FLAC, OGG (Vorbis, Opus), MP3 and AIFF through libsndfile.

Samples are held at the rate that codecs work at. A sound of another rate is resampled block by block while it
is read and while it is written, so that an hour of it needs no more memory than that.
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
from .opening import Guarded, created, opened
from .tags import clean

BLOCK = 1 << 16
"""Frames that are read, resampled or written at once."""

FLAC_BLOCK = 1 << 12
"""Frames of a FLAC that are read at once: where it ends too early, all that was asked for is lost."""

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
MAX_CHANNELS = 255

BELIEVED, AT_ONCE = 512, 1 << 28
"""Samples for each byte of a file, and in all, that memory is asked for on the word of its header."""

_UNSTATED = 1 << 60
"""What libsndfile gives for the frames of a file that does not state them is larger still."""

_LARGEST_WAV = 0xFFFFF000
_AGAIN = "copy the file again"
_UNKNOWN = "not an image or sound this build reads"


@dataclass(frozen=True, eq=False)
class Audio:
    """A sound at the rate of a codec, with what is needed to restore its own form.

    Attributes:
        signal: float32 [C, N] at `signal_rate`, N = ceil(frames * signal_rate / rate); full scale is 1.
        signal_rate: samples a second of `signal`.
        rate: samples a second of the sound itself, 8,000 to 192,000.
        frames: samples in each channel at that rate.
        tags: "title", "artist", "album", "date", "comment" and so on, as libsndfile names them.
        source: format of the file it came from ("WAV", "FLAC", ...); empty for arrays.

    Raises:
        MediaError: the signal has another type or shape, or there is none.
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
                "Audio.of(samples, rate)",
            )

    @property
    def channels(self) -> int:
        """1 mono, 2 stereo, or more."""
        return len(self.signal)

    @property
    def seconds(self) -> float:
        """Length."""
        return self.frames / self.rate

    @property
    def samples(self) -> np.ndarray:
        """The sound at its own rate: float32 [frames, C]."""
        return np.concatenate(list(self._blocks()))

    @classmethod
    def of(cls, samples: np.ndarray, rate: int, signal_rate: int = 16_000) -> Audio:
        """A sound from an array.

        Args:
            samples: float [N] or [N, C], full scale 1; or int16, full scale 32,768.
            rate: samples a second, 8,000 to 192,000.
            signal_rate: of the codec.

        Raises:
            MediaError: another type, no samples, samples that are not numbers, another rate.
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
        """The same sound without some of its metadata.

        Args:
            what: "tags" or "all"; "exif", "xmp" and "icc" are allowed and concern pictures only.

        Raises:
            UsageError: another word.
        """
        names = {what} if isinstance(what, str) else set(what)
        if unknown := names - {"exif", "xmp", "icc", "tags", "all"}:
            raise UsageError(f"cannot strip {min(unknown)}", "exif, xmp, icc, tags or all")
        return replace(self, tags={}) if names & {"tags", "all"} else self

    def save(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        """Write the sound to a file; without `format` the suffix of `path` chooses it.

        Raises:
            MediaError: a format that is not written here, or cannot hold this sound.
        """
        write_audio(self, path, format)

    def _blocks(self) -> Iterator[np.ndarray]:
        """Float32 [n, C] at the sound's own rate, `frames` in all; what is missing at the end is silence."""
        pieces = (self.signal[:, at : at + BLOCK].T for at in range(0, self.signal.shape[1], BLOCK))
        left = self.frames
        for block in _resampled(pieces, self.channels, self.signal_rate, self.rate):
            yield block[:left]
            left -= len(block[:left])
        while left:
            yield np.zeros((min(left, BLOCK), self.channels), np.float32)
            left -= min(left, BLOCK)


def read_audio(
    source: str | os.PathLike[str] | bytes | BinaryIO, rate: int = 16_000, *, strip: Iterable[str] = ()
) -> Audio:
    """Read a sound.

    Args:
        source: path, file contents, or binary stream.
        rate: samples a second of the signal that is wanted.
        strip: metadata to leave out.

    Raises:
        MediaError: absent, unreadable, truncated, empty, or samples that are not numbers.
        UsageError: a word in `strip` that names no metadata.
    """
    with opened(source) as stream:
        known = sound_format(stream.read(16))
        if not known:
            raise MediaError(_UNKNOWN)
        if known == "OGG" and not ogg_ends(stream):
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
                f"damaged {known}, or of a kind this build cannot read", f"{_AGAIN}, or convert it to WAV"
            ) from error
        except OSError as error:
            raise MediaError(f"cannot be read: {error.strerror or error}") from error
    return audio.without(strip)


class _Sequential(soundfile.SoundFile):  # type: ignore[misc]  # libsndfile comes without types
    """A file that is read from its beginning to its end.

    The base class seeks after every block, which fails at the end of a FLAC that does not state its length.
    """

    def seekable(self) -> bool:
        """Not here."""
        return False


def _read(file: soundfile.SoundFile, rate: int, stated: Stated, size: int, guarded: Guarded) -> Audio:
    own, channels, expected = file.samplerate, file.channels, file.frames
    _check(own, channels)
    reserved = min(expected, min(size * BELIEVED, AT_ONCE) // channels + BLOCK)
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
        # Where the file ended within a block, the count of frames tells better what is wrong.
        if not guarded.ended or file.frames >= _UNSTATED:
            raise


def _to_signal(
    blocks: Iterable[np.ndarray], channels: int, rate: int, signal_rate: int, reserved: int
) -> tuple[np.ndarray, int]:
    """Blocks [n, C] -> (float32 [C, N] at `signal_rate`, how many frames there were).

    Args:
        blocks: at `rate`.
        channels: C.
        rate: samples a second.
        signal_rate: likewise.
        reserved: frames that memory is asked for at once.
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

    # The resampler rounds the length its own way.
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
    """Samples at the rate wanted that cover so many frames."""
    return -(-frames * wanted // rate)


def _resampled(blocks: Iterable[np.ndarray], channels: int, rate: int, wanted: int) -> Iterator[np.ndarray]:
    """Blocks [n, C] at another rate."""
    if rate == wanted:
        yield from blocks
        return
    stream = soxr.ResampleStream(rate, wanted, channels, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)


def write_audio(audio: Audio, target: str | os.PathLike[str] | BinaryIO, format: str | None = None) -> None:
    """Write a sound at its own rate.

    Args:
        audio: what to write.
        target: path, or binary stream, which is left open and need not be seekable.
        format: "wav", "flac", "ogg", "opus", "mp3" or "aiff"; None: by the suffix of a path.

    Raises:
        MediaError: a format that is not written here, or cannot hold this sound.
        OSError: from the disk or the stream, as it came.

    Warns:
        MediaWarning: samples were beyond full scale and have been clipped; tags that the format cannot hold
            are left out.
    """
    path = Path(target) if isinstance(target, str | os.PathLike) else Path()
    suffix = "." + format.lower().removeprefix(".") if format else path.suffix.lower()
    if suffix not in AUDIO_FORMATS:
        names = "wav, flac, ogg, opus, mp3 or aiff"
        raise MediaError(f"no sound format has the suffix {suffix or '(none)'}", names)
    kind, subtype = AUDIO_FORMATS[suffix]
    if not soundfile.check_format(kind, subtype):
        raise MediaError(f"this build of libsndfile writes no {kind} {subtype}", AS_WAV)
    check_fit(kind, subtype, audio.channels, audio.rate)
    # WAV sizes are 32 bits; what is longer becomes RF64, which reads as WAV.
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
    """The number of samples that were clipped."""
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
