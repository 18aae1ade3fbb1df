"""Hold audio in memory, and write WAV, FLAC, OGG (Vorbis, Opus), MP3 and AIFF with libsndfile.

Samples are held at the rate of the codec. Audio of another rate is resampled block by block while it is read
and written, so that the original samples are never in memory as a whole.
"""

from __future__ import annotations

import base64
import html
import io
import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import soundfile

from ..errors import MediaError, MediaWarning, UsageError, warn
from .audio_files import AS_WAV, AUDIO_FORMATS, OPUS_RATE, OPUS_RATES, check_fit
from .channels import to_vorbis, write_mask
from .opening import Guarded, Writable, created
from .resampling import BLOCK, MAX_CHANNELS, check, length, resampled, to_signal
from .tag_files import plain_fields, write_tags
from .tags import Tags, cleaned, listed
from .tensors import as_array, is_tensor, signal_of, tensor_of

if TYPE_CHECKING:
    import torch

LONGEST_PREVIEW = 300
"""Seconds of audio that a notebook plays: they are part of its file."""

_LARGEST_WAV = 0xFFFFF000


@dataclass(frozen=True, eq=False, repr=False)
class Audio:
    """Audio at the rate of a codec, with its original rate and length.

    An array where numpy wants one, and a player in notebooks.

    Attributes:
        signal: float32 [C, N] at `signal_rate`, N = ceil(frames * signal_rate / rate); full scale is 1.
        signal_rate: samples a second of `signal`.
        rate: original samples a second, 8,000 to 192,000.
        frames: samples in each channel at that rate.
        tags: "title", "artist", "album", "date", "comment" and so on, named as Vorbis comments are, in lower
            case; each with a list of values. A single text is taken as a list of one.
        source: format of its file ("WAV", "FLAC", ...); empty for arrays.

    Raises:
        MediaError: the signal has a wrong type or shape, or is empty.
    """

    signal: np.ndarray
    signal_rate: int
    rate: int
    frames: int
    tags: Tags = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tags", listed(self.tags))
        shape = self.signal.shape
        if self.signal.dtype != np.float32 or len(shape) != 2 or not 1 <= shape[0] <= MAX_CHANNELS:
            raise MediaError(f"signal is {self.signal.dtype} {list(shape)}", "give float32 [C, N]")
        if self.frames < 1 or self.rate < 1 or shape[1] != length(self.frames, self.rate, self.signal_rate):
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

    def __repr__(self) -> str:
        tags = f", {len(self.tags)} tags" if self.tags else ""
        return f"<Audio {self.seconds:.2f} s, {self.rate} Hz, {self.channels} channels{tags}>"

    def __array__(self, dtype: np.dtype[Any] | None = None, copy: bool | None = None) -> np.ndarray:
        """Return the samples at the original rate, [frames, C]."""
        if copy is False:
            raise ValueError("the samples are resampled, which makes a copy")
        return as_array(self.samples, dtype, None)

    def to_tensor(self, device: str | torch.device = "cpu") -> torch.Tensor:
        """Return the samples at the original rate: float32 [C, frames], as torchaudio has them."""
        return tensor_of(self.samples, device)

    def _repr_html_(self) -> str:
        """Return a player for notebooks, of at most LONGEST_PREVIEW seconds."""
        shown = self
        if self.seconds > LONGEST_PREVIEW:
            count = LONGEST_PREVIEW * self.signal_rate
            shown = Audio(self.signal[:, :count], self.signal_rate, self.signal_rate, count)
        kind = "flac" if self.channels <= 8 else "wav"
        stream = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", MediaWarning)  # the file that is saved will tell
            write_audio(replace(shown, tags={}), stream, kind)
        source = f"data:audio/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
        text = html.escape(repr(self)[1:-1])
        if shown is not self:
            text += f", the first {LONGEST_PREVIEW} s"
        return f'<figure><figcaption>{text}</figcaption><audio controls src="{source}"></audio></figure>'

    @classmethod
    def of(cls, samples: np.ndarray | torch.Tensor, rate: int, signal_rate: int = 16_000) -> Audio:
        """Make audio from an array or a tensor.

        Args:
            samples: float [N] or [N, C], full scale 1; or int16, full scale 32,768. Of a tensor: [N] or
                [C, N], as torchaudio has it.
            rate: samples a second, 8,000 to 192,000.
            signal_rate: of the codec.

        Raises:
            MediaError: a wrong type or rate, no samples, or samples that are not finite.
        """
        samples = signal_of(samples) if is_tensor(samples) else np.asarray(samples)
        if not isinstance(rate, int | np.integer):
            raise MediaError(f"rate is {rate!r}", "give a whole number of samples a second")
        array = samples[:, None] if samples.ndim == 1 else samples
        if array.ndim != 2 or not (array.dtype == np.int16 or np.issubdtype(array.dtype, np.floating)):
            raise MediaError(f"array is {samples.dtype} {list(samples.shape)}", "give float32 [N] or [N, C]")
        check(rate, array.shape[1], len(array))
        scale = np.float32(1 / 32768 if array.dtype == np.int16 else 1)

        def block(at: int) -> np.ndarray:
            with np.errstate(over="ignore"):  # numbers beyond float32 are refused as infinite
                return array[at : at + BLOCK].astype(np.float32) * scale

        blocks = (block(at) for at in range(0, len(array), BLOCK))
        signal, frames = to_signal(blocks, array.shape[1], rate, signal_rate, len(array))
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

    def _blocks(self, rate: int | None = None) -> Iterator[np.ndarray]:
        """Yield blocks float32 [n, C], at the original rate or another, padded with silence to the length."""
        pieces = (self.signal[:, at : at + BLOCK].T for at in range(0, self.signal.shape[1], BLOCK))
        left = self.frames if rate is None else length(self.frames, self.rate, rate)
        for block in resampled(pieces, self.channels, self.signal_rate, rate or self.rate):
            yield block[:left]
            left -= len(block[:left])
        while left:
            yield np.zeros((min(left, BLOCK), self.channels), np.float32)
            left -= min(left, BLOCK)


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
        MediaWarning: samples beyond full scale are clipped; tags that the format cannot hold are left out;
            a rate that Opus lacks is changed.
    """
    path = Path(target) if isinstance(target, str | os.PathLike) else Path()
    suffix = "." + format.lower().removeprefix(".") if format else path.suffix.lower()
    if suffix not in AUDIO_FORMATS:
        names = "choose wav, flac, ogg, opus, mp3 or aiff"
        raise MediaError(f"no audio format has the suffix {suffix or '(none)'}", names)
    kind, subtype = AUDIO_FORMATS[suffix]
    if not soundfile.check_format(kind, subtype):
        raise MediaError(f"this build of libsndfile writes no {kind} {subtype}", AS_WAV)
    rate = OPUS_RATE if subtype == "OPUS" and audio.rate not in OPUS_RATES else audio.rate
    check_fit(kind, subtype, audio.channels, rate)
    # WAV sizes have 32 bits; longer files become RF64, which reads as WAV.
    if kind == "WAV" and audio.frames * audio.channels * 2 > _LARGEST_WAV:
        kind = "RF64"
    tags = cleaned(audio.tags)
    with created(target) as stream:
        clipped = _write(audio, stream, kind, subtype, rate, plain_fields(kind, tags))
        if kind == "WAV" and audio.channels > 2:
            write_mask(stream, audio.channels)
        lost = write_tags(stream, kind, subtype, tags)
        stream.seek(0, os.SEEK_END)
    # The program that wrote the source need not be preserved.
    if lost := [name for name in lost if name not in ("software", "encoder")]:
        warn(f"{kind} cannot hold {', '.join(lost)}: left out", MediaWarning)
    if rate != audio.rate:
        warn(f"Opus has no {audio.rate:,} samples a second: resampled to {rate:,}", MediaWarning)
    if clipped:
        warn(f"{clipped:,} samples beyond full scale were clipped", MediaWarning)


def _write(audio: Audio, stream: BinaryIO, kind: str, subtype: str, rate: int, fields: dict[str, str]) -> int:
    """Write audio; return the number of samples that were clipped."""
    clipped = 0
    guarded = Guarded(stream)
    # What has more than two channels says which they are.
    format = "WAVEX" if kind == "WAV" and audio.channels > 2 else kind
    try:
        with soundfile.SoundFile(guarded, "w", rate, audio.channels, subtype, format=format) as file:
            for name, text in fields.items():
                setattr(file, name, text)
            for block in audio._blocks(rate):
                limited = np.clip(block, -1, 1)
                clipped += int(np.count_nonzero(limited != block))
                file.write(to_vorbis(limited) if kind == "OGG" else limited)
                guarded.check()
    except (soundfile.LibsndfileError, AssertionError) as error:
        guarded.check()
        raise MediaError(f"cannot be written as {kind}: {error}", AS_WAV) from error
    guarded.check()
    return clipped
