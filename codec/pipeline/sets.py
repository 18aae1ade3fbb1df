"""Sets of small pictures of 0 and 1 without loss, by bits back (`coding.bits_back`)."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from .. import media, weights
from ..bitstream import container
from ..bitstream.container import BITS_BACK, RAW, Bitstream, Chunk
from ..bitstream.geometry import SetGeometry
from ..coding import bits_back, rangecoder
from ..errors import (
    DamagedError,
    DamageWarning,
    LimitError,
    MediaError,
    ModelError,
    UsageError,
    VqcodecWarning,
    confined,
    warn,
)
from ..models.base import Model
from ..models.latent.integers import IntegerVAE
from .decoding import bytes_of, model_for


@dataclass(frozen=True)
class EncodedSet:
    """A bitstream, with the geometry of its pictures.

    Attributes:
        data: the .vqc file.
        geometry: number and size of the pictures.
        original: the pictures.
        coder: the model.
    """

    data: bytes
    geometry: SetGeometry
    original: media.PictureSet
    coder: Model

    kbps = quality = None
    """Those of other media."""

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.coder.card.name

    def verify(self) -> float:
        """Decode again and compare every pixel; return the PSNR, which is infinite.

        Raises:
            DamagedError: a pixel differs.
        """
        decoded, _ = _decode(container.parse(self.data), self.coder, salvage=False)
        if not np.array_equal(decoded.pixels, self.original.pixels):
            raise DamagedError("the bitstream does not decode to the encoded pictures", "report this")
        return math.inf

    @property
    def bpp(self) -> float | None:
        """Bits per pixel of the whole file."""
        return container.read_info(self.data).bpp


def encode_set(
    source: media.PictureSet | NDArray[np.generic] | media.Readable,
    *,
    model: str | os.PathLike[str] | None = None,
    max_pixels: int = media.MAX_PIXELS,
    device: str = "auto",
) -> EncodedSet:
    """Compress a set of small pictures of 0 and 1 into a .vqc bitstream, without loss.

    A chunk that would be larger than a bit for each pixel has those bits: bits back needs more pictures than
    one to get its bits back from.

    Args:
        source: a media.PictureSet, an array uint8 or bool [N, H, W], or a path, bytes or binary file of .npy,
            .npz or idx(.gz).
        model: a shipped model's name or a .safetensors file, of the method of `vae-bits`.
        max_pixels: refuse larger sets.
        device: where the weights are loaded; the networks run in numpy.

    Raises:
        MediaError: no such set, a larger one, or pixels other than 0 and 1, or 0 and 255.
        UsageError: no such model or device, or a model of other pictures.
    """
    loaded = weights.load(model or weights.DEFAULTS["set"], device)
    pictures = _opened(source)
    if pictures.pixels.size > max_pixels:
        raise MediaError(f"{pictures.pixels.size:,} pixels, limit {max_pixels:,}", "raise --max-pixels")
    white = pictures.white
    if white is None or pictures.pixels.ndim != 3 or not pictures.pixels.size:
        raise MediaError("pixels other than 0 and 1", "only sets of black and white pictures can be encoded")
    coder = _coder(loaded, pictures.pixels.shape[1:])
    count, height, width = pictures.pixels.shape
    geometry = SetGeometry(count, width, height, white)
    chunks = []
    for region in geometry.regions:
        part = (pictures.pixels[region.part(1)] != 0).astype(np.uint8)
        coded = Chunk(BITS_BACK, bits_back.encode(part.reshape(len(part), -1), coder))
        packed = Chunk(RAW, rangecoder.pack_raw(part.astype(np.int32), 1))
        chunks.append(min(coded, packed, key=lambda chunk: len(chunk.payload)))
    if count == 1:
        warn("one picture alone gets no bits back; give many in one file", VqcodecWarning)
    fingerprint = bytes.fromhex(loaded.card.fingerprint)
    stream = Bitstream(loaded.card.name, fingerprint, geometry, chunks, source=pictures.source)
    return EncodedSet(container.pack(stream), geometry, pictures, loaded)


def decode_set(
    data: bytes | str | os.PathLike[str] | IO[bytes],
    *,
    model: str | os.PathLike[str] | None = None,
    salvage: bool = False,
    max_pixels: int = media.MAX_PIXELS,
    device: str = "auto",
) -> media.PictureSet:
    """Restore a set of small pictures.

    Args:
        data: the bytes, a path or a binary file.
        model: weights for decoding, where they are not shipped.
        salvage: leave the pictures of damaged chunks black, each chunk with a DamageWarning.
        max_pixels: refuse larger sets.
        device: as in `encode_set`.

    Raises:
        MediaError, BitstreamError, ModelError: as in `decode`.
        UsageError: the bitstream holds an image or audio.
    """
    stream = container.parse(bytes_of(data), salvage=salvage)
    geometry = stream.geometry
    if not isinstance(geometry, SetGeometry):
        raise UsageError(f"the file holds {geometry.describe}", "decode it with decode")
    if math.prod(geometry.grid(1)) > max_pixels:
        raise LimitError(f"header claims {geometry.describe}", "raise --max-pixels to decode it")
    pictures, damage = _decode(stream, model_for(stream, model, device), salvage=salvage)
    for message in [*stream.damage, *damage]:
        warn(message, DamageWarning)
    return pictures


def _decode(stream: Bitstream, model: Model, *, salvage: bool) -> tuple[media.PictureSet, list[str]]:
    """Decode a set, and describe damage; with `salvage` pictures of damaged chunks are black.

    Raises:
        DamagedError: damage, without `salvage`.
        ModelError: a chunk that is coded in another way.
        UsageError: the model is of other pictures.
    """
    geometry = stream.geometry
    if not isinstance(geometry, SetGeometry):
        raise TypeError(geometry.kind)
    coder = _coder(model, (geometry.height, geometry.width))
    damage: list[str] = []
    pixels = np.zeros(geometry.grid(1), np.uint8)
    for number, (chunk, region) in enumerate(zip(stream.chunks, geometry.regions, strict=True), 1):
        if not chunk.intact:
            continue
        if chunk.prior not in (BITS_BACK, RAW):
            raise ModelError(f"chunk {number} is coded in a way that {stream.model} does not have", "upgrade")
        with confined(f"chunk {number} of {geometry.chunk_count}", damage, salvage=salvage):
            pixels[region.part(1)] = _decoded(chunk, region.shape(1), coder) * geometry.white
    return media.PictureSet(pixels, stream.source), damage


def _opened(source: media.PictureSet | NDArray[np.generic] | media.Readable) -> media.PictureSet:
    if isinstance(source, media.PictureSet):
        return source
    if isinstance(source, np.ndarray):
        if source.dtype not in (np.uint8, np.bool_):
            raise MediaError(f"pixels are {source.dtype}", "give uint8 or bool [N, H, W]")
        return media.PictureSet(source.view(np.uint8))
    return media.read_set(source)


def _decoded(chunk: Chunk, shape: tuple[int, ...], coder: IntegerVAE) -> NDArray[np.uint8]:
    if chunk.prior == RAW:
        count = shape[0] * shape[1] * shape[2]
        return rangecoder.unpack_raw(chunk.payload, count, 1).astype(np.uint8).reshape(shape)
    return bits_back.decode(chunk.payload, shape[0], coder).reshape(shape)


def _coder(model: Model, shape: tuple[int, ...]) -> IntegerVAE:
    coder, (height, width) = model.in_integers(), shape
    side = round(coder.pixels**0.5)
    if (height, width) != (side, side):
        raise UsageError(
            f"pictures are {width}x{height}, those of {model.card.name} {side}x{side}",
            f"vqcodec train FILE -m vae-bits --set side={height}"
            if height == width
            else "pad them to squares",
        )
    return coder
