"""Bits back with asymmetric numeral systems (Townsend, Bird, Barber 2019, "Practical lossless compression").

A picture x is coded with latents z that a decoder can tell from x alone:

    pop z by q(z | x), push x by p(x | z), push z by p(z):    -log2 [p(x | z) p(z) / q(z | x)] bits

The bits popped are those of the picture before, so only the first picture pays for its latents: it pops SEED,
which stays at the bottom of the stack. A decoder does the same backwards, from the last picture to the first.
The mean number of bits is the negative ELBO.

The coder is constriction's ANS coder, with words, state and probabilities of the size of `rangecoder`'s.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, Protocol

import constriction
import numpy as np
from numpy.typing import NDArray

from ..errors import DamagedError
from ..priors import latent_tables
from ..priors.base import Categorical, Frequencies
from .rangecoder import as_model, as_models, LAZY

SEED = np.frombuffer(hashlib.sha512(b"bits back").digest(), "<u4").astype(np.uint32)
"""Words at the bottom of the stack: 512 bits, more than the latents of a first picture take."""


class LatentPictures(Protocol):
    """A VAE of pictures of 0 and 1, in integers; see `models.latent.integers`."""

    def posterior(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
        """q(z | x): uint8 [N, P] -> means in steps and numbers of tables of `latent_tables`, [N, M] each."""

    def likelihood(self, latents: NDArray[np.int32]) -> Frequencies:
        """p(x | z) of one picture: latents in steps, int32 [M] -> frequencies of 0 and 1, [P, 2]."""


def encode(pictures: NDArray[np.uint8], model: LatentPictures) -> bytes:
    """Code pictures.

    Args:
        pictures: uint8 [N, P], pixels of 0 and 1.
        model: the VAE.

    Returns:
        32-bit words, little endian.
    """
    stack = constriction.stream.stack.AnsCoder(SEED)
    for picture, mean, table in zip(pictures, *model.posterior(pictures), strict=True):
        latents = mean + _pop(stack, table)
        stack.encode_reverse(picture.astype(np.int32), LAZY, as_models(model.likelihood(latents)))
        stack.encode_reverse(latents + latent_tables.PRIOR_LIMIT, _prior())
    return bytes(stack.get_compressed().astype("<u4").tobytes())


def decode(data: bytes, count: int, model: LatentPictures) -> NDArray[np.uint8]:
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
        raise DamagedError(f"{len(data)} bytes of pictures are not a whole number of words")
    stack = constriction.stream.stack.AnsCoder(np.frombuffer(data, "<u4").astype(np.uint32))
    pictures = []
    for _ in range(count):
        if stack.is_empty():
            raise DamagedError("fewer pictures than the header claims")
        latents = stack.decode(_prior(), model.units) - latent_tables.PRIOR_LIMIT
        picture = stack.decode(LAZY, as_models(model.likelihood(latents))).astype(np.uint8)
        means, tables = model.posterior(picture[None])
        _push(stack, latents - means[0], tables[0])
        pictures.append(picture)
    if not np.array_equal(stack.get_compressed(), SEED):
        raise DamagedError("pictures that no encoder writes")
    return np.stack(pictures[::-1])
