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
from typing import Any, BinaryIO

import numpy as np
import soundfile
import soxr

from ..errors import MediaError, MediaWarning, UsageError
from .opening import opened

BLOCK = 1 << 16
"""Frames that are read, resampled or written at once."""

LOWEST_RATE, HIGHEST_RATE = 8_000, 192_000
MAX_CHANNELS = 255

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

_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
_UNKNOWN = "not an image or sound this build reads"
_STREAMED = {0, 0xFFFFFFFF, 0x7FFFFFFF, 0xFFFFFFFF - 36, 0x7FFFFFFF - 36, 0x7FFFF000}
"""Sizes that programs write into a WAV which goes through a pipe, before they know its length."""


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
    """

    signal: np.ndarray
    signal_rate: int
    rate: int
    frames: int
    tags: dict[str, str] = field(default_factory=dict)
    source: str = ""

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
        array = samples[:, None] if samples.ndim == 1 else samples
        if array.dtype == np.int16:
            array = array.astype(np.float32) / 32768
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.floating):
            raise MediaError(f"array is {samples.dtype} {list(samples.shape)}", "give float32 [N] or [N, C]")
        _check(rate, array.shape[1], len(array))
        blocks = (array[at : at + BLOCK].astype(np.float32) for at in range(0, len(array), BLOCK))
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
        """Float32 [n, C] at the sound's own rate, `frames` in all."""
        pieces = (self.signal[:, at : at + BLOCK].T for at in range(0, self.signal.shape[1], BLOCK))
        yield from _resampled(pieces, self.channels, self.signal_rate, self.rate, self.frames)


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

    Warns:
        MediaWarning: there was something to hear above half the rate that is wanted.
    """
    with opened(source) as stream:
        missing = _missing_bytes(stream)
        stream.seek(0)
        try:
            with soundfile.SoundFile(stream) as file:
                audio = _read(file, rate, missing)
        except soundfile.LibsndfileError as error:
            known = _kind(stream)
            raise MediaError(
                f"damaged {known}, or of a kind this build cannot read" if known else _UNKNOWN,
                "copy the file again, or convert it to WAV" if known else "",
            ) from error
    return audio.without(strip)


def _read(file: soundfile.SoundFile, rate: int, missing: int) -> Audio:
    _check(file.samplerate, file.channels, file.frames)
    expected = file.frames
    blocks = _file_blocks(file)
    signal, frames = _to_signal(blocks, file.channels, file.samplerate, rate, expected)
    if missing:
        width = max(file.channels * _BYTES.get(file.subtype, 2), 1)
        expected = frames + missing // width
    if frames < expected or missing:
        raise MediaError(f"truncated: {frames} of {expected} frames", "copy the file again")
    tags = {name: text for name, text in file.copy_metadata().items() if text}
    if "software" in tags:  # libsndfile adds its own name every time it writes
        tags["software"] = tags["software"].split(" (libsndfile")[0]
    return Audio(signal, rate, file.samplerate, frames, tags, _source(file))


_BYTES = {"PCM_S8": 1, "PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1}


def _source(file: soundfile.SoundFile) -> str:
    names = {"WAVEX": "WAV", "RF64": "WAV", "MPEG": "MP3"}
    return "OPUS" if file.subtype == "OPUS" else names.get(file.format, file.format)


def _check(rate: int, channels: int, frames: int) -> None:
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise MediaError(f"{rate:,} samples a second", f"resample it to {LOWEST_RATE:,} to {HIGHEST_RATE:,}")
    if not 1 <= channels <= MAX_CHANNELS:
        raise MediaError(f"{channels} channels, limit {MAX_CHANNELS}", "split the file")
    if frames < 1:
        raise MediaError("no samples")


def _file_blocks(file: soundfile.SoundFile) -> Iterator[np.ndarray]:
    while len(block := file.read(BLOCK, dtype="float32", always_2d=True)):
        yield block


def _to_signal(
    blocks: Iterable[np.ndarray], channels: int, rate: int, signal_rate: int, expected: int
) -> tuple[np.ndarray, int]:
    """Blocks [n, C] -> (float32 [C, N] at `signal_rate`, how many frames there were)."""
    frames = 0

    def counted() -> Iterator[np.ndarray]:
        nonlocal frames
        for block in blocks:
            if not np.isfinite(block).all():
                what = "NaN" if np.isnan(block).any() else "infinite"
                raise MediaError(f"{what} samples", "repair the file first")
            frames += len(block)
            yield block

    signal = np.zeros((channels, -(-expected * signal_rate // rate)), np.float32)
    at = 0
    for piece in _resampled(counted(), channels, rate, signal_rate, signal.shape[1]):
        signal[:, at : at + len(piece)] = piece.T
        at += len(piece)
    return signal[:, : -(-frames * signal_rate // rate)], frames


def _resampled(
    blocks: Iterable[np.ndarray], channels: int, rate: int, wanted: int, count: int
) -> Iterator[np.ndarray]:
    """Blocks [n, C] at another rate, `count` frames in all: what is missing at the end is silence."""
    left = count

    def cut(block: np.ndarray) -> np.ndarray:
        nonlocal left
        block = block[:left]
        left -= len(block)
        return block

    if rate == wanted:
        for block in blocks:
            yield cut(block)
    else:
        stream = soxr.ResampleStream(rate, wanted, channels, dtype="float32")
        for block in blocks:
            yield cut(stream.resample_chunk(np.ascontiguousarray(block)))
        yield cut(stream.resample_chunk(np.zeros((0, channels), np.float32), last=True))
    while left:
        yield cut(np.zeros((min(left, BLOCK), channels), np.float32))


def write_audio(audio: Audio, target: str | os.PathLike[str] | BinaryIO, format: str | None = None) -> None:
    """Write a sound at its own rate.

    Args:
        audio: what to write.
        target: path or binary file.
        format: "wav", "flac", "ogg", "opus", "mp3" or "aiff"; None: by the suffix of a path.

    Raises:
        MediaError: a format that is not written here, or cannot hold this sound.

    Warns:
        MediaWarning: samples were beyond full scale and have been clipped.
    """
    suffix = f".{format}" if format else Path(str(target)).suffix.lower()
    if suffix not in AUDIO_FORMATS:
        raise MediaError(
            f"no sound format has the suffix {suffix or '(none)'}", "wav, flac, ogg, opus or mp3"
        )
    kind, subtype = AUDIO_FORMATS[suffix]
    rate = audio.rate
    if not soundfile.check_format(kind, subtype):
        raise MediaError(f"this build of libsndfile writes no {kind} {subtype}", "--format wav")
    if subtype == "OPUS" and rate not in _OPUS_RATES:
        raise MediaError(f"Opus has no {rate:,} samples a second", "--format wav or flac")
    if subtype == "MPEG_LAYER_III" and (audio.channels > 2 or rate > 48_000):
        raise MediaError(f"MP3 cannot hold {audio.channels} channels at {rate:,} Hz", "--format wav or flac")
    if kind == "FLAC" and audio.channels > 8:
        raise MediaError(f"FLAC cannot hold {audio.channels} channels", "--format wav")
    clipped = 0
    handle: Any = os.fspath(target) if isinstance(target, str | os.PathLike) else target
    # WAV sizes are 32 bits; what is longer becomes RF64, which reads as WAV.
    if kind == "WAV" and audio.frames * audio.channels * 2 > 0xFFFFF000:
        kind = "RF64"
    try:
        with soundfile.SoundFile(
            handle, "w", samplerate=rate, channels=audio.channels, format=kind, subtype=subtype
        ) as file:
            for name, text in audio.tags.items():
                if name in _TAGS and not (name == "software" and kind in ("MP3", "OGG")):
                    setattr(file, name, text)
            for block in audio._blocks():
                limited = np.clip(block, -1, 1)
                clipped += int(np.count_nonzero(limited != block))
                file.write(limited)
    except soundfile.LibsndfileError as error:
        raise MediaError(f"cannot be written as {kind}: {error.error_string}", "--format wav") from error
    if clipped:
        warnings.warn(f"{clipped:,} samples beyond full scale were clipped", MediaWarning, stacklevel=2)


_TAGS = frozenset(
    (
        "title",
        "copyright",
        "software",
        "artist",
        "comment",
        "date",
        "album",
        "license",
        "tracknumber",
        "genre",
    )
)


def _kind(stream: BinaryIO) -> str:
    """The format that the first bytes announce; empty if none of ours."""
    stream.seek(0)
    return sound_format(stream.read(16))


def sound_format(head: bytes) -> str:
    """Name of the sound format that a file of these first 16 bytes has; empty if none that is read here."""
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
        return "WAV"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE6 == 0xE2):
        return "MP3"
    starts = {b"fLaC": "FLAC", b"OggS": "OGG", b".snd": "AU", b"caff": "CAF", b"riff": "W64"}
    return starts.get(head[:4], "")


def _missing_bytes(stream: BinaryIO) -> int:
    """Bytes that a WAV or AIFF says it has and has not: libsndfile reads what is there without a word."""
    size = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(12)
    order = {b"RIFF": "little", b"FORM": "big"}.get(head[:4])
    if order is None or sound_format(head) not in ("WAV", "AIFF"):
        return 0
    at = 12
    while len(chunk := stream.read(8) if stream.seek(at) == at else b"") == 8:
        length = int.from_bytes(chunk[4:], order)  # type: ignore[arg-type]
        if chunk[:4] in (b"data", b"SSND"):
            return 0 if length in _STREAMED else max(at + 8 + length - size, 0)
        at += 8 + length + length % 2
    return 0
