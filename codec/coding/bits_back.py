"""Bits back with asymmetric numeral systems (Townsend, Bird, Barber 2019, "Practical lossless compression").

A picture x is coded with latents z that a decoder can tell from x alone:

    pop z by q(z | x), push x by p(x | z), push z by p(z):    -log2 [p(x | z) p(z) / q(z | x)] bits

The bits popped are those of the picture before, so only the first picture pays for its latents: it pops SEED,
which lies at the bottom of the stack. A decoder does the same backwards, from the last picture to the first.
The mean number of bits is the negative ELBO.

The coder is constriction's ANS coder; words, state and probabilities are of the sizes of `rangecoder`'s.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError
from ..models.latent.integers import IntegerVAE
from ..priors import latent_tables
from .rangecoder import CATEGORICAL, pmf_minus_one, table_model

SEED = np.frombuffer(hashlib.sha512(b"bits back").digest(), "<u4").astype(np.uint32)
"""512 bits: more than the latents of the first picture take."""


def encode(pictures: NDArray[np.uint8], model: IntegerVAE) -> bytes:
    """Code pictures.

    Args:
        pictures: uint8 [N, P], pixels of 0 and 1.
        model: the VAE.

    Returns:
        32-bit words, little endian.
    """
    stack = constriction.stream.stack.AnsCoder(SEED)
    for picture, mean, scales in zip(pictures, *model.posterior(pictures), strict=True):
        latents = mean + _pop(stack, scales)
        stack.encode_reverse(picture.astype(np.int32), CATEGORICAL, pmf_minus_one(model.likelihood(latents)))
        stack.encode_reverse(latents + latent_tables.LIMIT, _prior())
    return bytes(stack.get_compressed().astype("<u4").tobytes())


def decode(data: bytes, count: int, model: IntegerVAE) -> NDArray[np.uint8]:
    """Decode pictures.

    Args:
        data: from `encode`.
        count: N.
        model: the same VAE.

    Returns:
        uint8 [N, P].

    Raises:
        DamagedError: not the bytes of so many pictures.
    """
    if len(data) % 4 or data[-4:] == bytes(4):
        raise DamagedError(f"{len(data)} bytes of pictures do not end in a word")
    stack = constriction.stream.stack.AnsCoder(np.frombuffer(data, "<u4").astype(np.uint32))
    pictures = np.empty((count, model.pixels), np.uint8)
    for number in reversed(range(count)):
        if stack.is_empty():
            raise DamagedError("fewer pictures than the header claims")
        latents = stack.decode(_prior(), model.units) - latent_tables.LIMIT
        pictures[number] = stack.decode(CATEGORICAL, pmf_minus_one(model.likelihood(latents)))
        means, scales = model.posterior(pictures[number : number + 1])
        _push(stack, latents - means[0], scales[0])
    if not np.array_equal(stack.get_compressed(), SEED):
        raise DamagedError("pictures that no encoder writes")
    return pictures


def _pop(stack: Any, scales: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Pop the symbols of a posterior, table by table."""
    symbols = np.empty(len(scales), np.int32)
    for index in np.unique(scales).tolist():
        chosen = scales == index
        popped = stack.decode(_posterior(index), int(chosen.sum()))
        symbols[chosen] = popped - latent_tables.largest_symbol(index)
    return symbols


def _push(stack: Any, symbols: NDArray[np.int32], scales: NDArray[np.uint8]) -> None:
    """Undo `_pop`."""
    for index in np.unique(scales).tolist()[::-1]:
        largest = latent_tables.largest_symbol(index)
        shifted = symbols[scales == index] + largest
        if shifted.min() < 0 or shifted.max() > 2 * largest:
            raise DamagedError("pictures that no encoder writes")
        stack.encode_reverse(shifted, _posterior(index))


@cache
def _prior() -> Any:
    return table_model(latent_tables.prior())


@cache
def _posterior(index: int) -> Any:
    return table_model(latent_tables.posterior(index))
