"""Mutated bitstreams, which have to end in a decoded image or audio, or in an error of ours."""

from __future__ import annotations

import warnings

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from vqcodec import media, pipeline
from vqcodec.bitstream import container
from vqcodec.bitstream.container import AudioGeometry
from vqcodec.errors import BitstreamError, DamageWarning, ModelError

FUZZ = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))

MAX_PIXELS, MAX_SECONDS = 20_000, 3.0
"""What decoders are allowed, so that a lying header costs no minutes."""


def mutate(data: bytes, draw: st.DrawFn, others: list[bytes]) -> bytes:
    """Flip, set, cut, insert, delete and splice, up to four times; the beginning is hit more often."""
    out = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flip", "flip", "set", "cut", "insert", "delete", "splice"]))
        at = min(draw(st.integers(0, max(len(out) - 1, 0)) | st.integers(0, 60)), len(out))
        if kind == "flip" and at < len(out):
            out[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set" and at < len(out):
            out[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]))
        elif kind == "cut":
            del out[at:]
        elif kind == "insert":
            out[at:at] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del out[at : at + draw(st.integers(1, 8))]
        elif kind == "splice":
            other = draw(st.sampled_from(others))
            out[at:] = other[draw(st.integers(0, len(other))) :]
    return bytes(out)


def end_well(data: bytes, model: str, salvage: bool) -> media.Image | media.Audio | None:
    """What is decoded, or None after an error of ours; everything else, warnings included, comes through."""
    with warnings.catch_warnings():
        if salvage:
            warnings.simplefilter("ignore", DamageWarning)
        try:
            decoded = pipeline.decode(
                data, model=model, salvage=salvage, max_pixels=MAX_PIXELS, max_seconds=MAX_SECONDS
            )
        except (BitstreamError, ModelError) as error:
            assert error.message
            return None
    size = container.read_info(data).geometry
    if isinstance(size, AudioGeometry):
        assert isinstance(decoded, media.Audio)
        assert (decoded.channels, decoded.frames, decoded.rate) == (size.channels, size.frames, size.rate)
        assert np.isfinite(decoded.signal).all()
    else:
        assert isinstance(decoded, media.Image)
        assert decoded.samples.shape == (size.height, size.width, size.channels)
        assert decoded.samples.dtype == np.uint8
        assert decoded.alpha is None or decoded.alpha.shape == decoded.samples.shape[:2]
    return decoded
