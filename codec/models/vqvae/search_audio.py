"""Search codes of audio with a smaller error after decoding than the nearest codes, at a similar rate.

The latents follow the gradient of the model's distances of spectra, which passes the quantizer straight
through (van den Oord et al. 2017, section 3.2), as in Djelouah et al. 2019 ("Content adaptive optimization
for neural image compression"). In each step codes are chosen by their distance and by their bits in the
context of the previous step's codes. The codes with the smallest error are returned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...priors import exact
from ...priors.base import Prior
from ...priors.ngram import NGramPrior
from ...priors.wavenet import WaveNetPrior
from .. import losses
from ..quantizers import EntropyConstrainedQuantizer, VectorQuantizer

if TYPE_CHECKING:
    from .audio import AudioVQVAE

STEPS = {0: 0, 1: 0, 2: 10, 3: 20}
"""Steps of gradient descent, by effort. On validation speech 40 and 60 gained nothing over 20."""

STEP_SIZE = 0.4
"""First step times the square root of the number of steps, relative to the RMS of the codebook."""

BETAS = (0.5, 0.99)
"""Decay of the means of gradients and of their squares, as in Adam (Kingma and Ba 2015, algorithm 1)."""

DISTANCE_PER_BIT = 0.04
"""Squared distance equivalent to one bit, relative to the mean square of the codes: on validation speech 20
steps, the first of 0.27, take as many bits as the nearest codes; with 0.02 4 % more, with 0 8 %."""

RATE_WEIGHT = 2.5
"""Factor of the distance equivalent to one bit, of entropy-constrained codebooks in a search: targets move to
where codes are rare. On validation speech 10 steps take 20 % more bits with 1, 9 % more with 2."""

PRIOR_INTERVAL = 5
"""Steps between evaluations of the learned prior, whose probabilities change slowly."""


def searches(samples: Tensor, effort: int) -> bool:
    """Return whether codes of [1, 1, N] are searched: not if shorter than half the longest window."""
    return STEPS[effort] > 0 and samples.shape[2] > losses.MIRROR_LIMIT


def bits_given(learned: Prior | None) -> Callable[[Mapping[str, Tensor]], Tensor] | None:
    """Return the function from codes of several levels to bits by an n-gram prior; None without one.

    It maps int64 [1, T] by plane to [1, K, T]: the bits of every code of its plane at each position, given
    the codes before it and those of the planes before.
    """
    if not isinstance(learned, NGramPrior):
        return None

    def bits(codes: Mapping[str, Tensor]) -> Tensor:
        known = {name: found[0].cpu().numpy().astype(np.int32) for name, found in codes.items()}
        logits = torch.from_numpy(learned.logits_of(known).astype(np.float32) / 2**exact.LOGIT_BITS)
        return (-F.log_softmax(logits, 1) / math.log(2)).T[None].to(next(iter(codes.values())).device)

    return bits


def bits_of(learned: Prior | None, codebook: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return the function from codes to bits by a WaveNet; None without one.

    It maps int64 [1, T] to [1, K, T]: the bits of every code at each position, given the codes before it.
    """
    if not isinstance(learned, WaveNetPrior):
        return None
    network = learned.network(codebook)
    return lambda codes: -F.log_softmax(network(codes), 1) / math.log(2)


class Codebook(NamedTuple):
    """Codes to choose from.

    Attributes:
        vectors: float32 [K, D].
        bits: of each code without a context, float32 [K].
        distance_per_bit: squared distance equivalent to one bit.
    """

    vectors: Tensor
    bits: Tensor
    distance_per_bit: float

    @classmethod
    def of(cls, quantizer: VectorQuantizer, *, searching: bool) -> Codebook:
        """Return the codes of a quantizer; where it has no bits, all codes have the same."""
        vectors = quantizer.codebook.detach()
        if isinstance(quantizer, EntropyConstrainedQuantizer):
            weight = RATE_WEIGHT if searching else 1.0
            return cls(vectors, quantizer.bits, weight * float(quantizer.distance_per_bit))
        square = vectors.square().sum(1)
        return cls(vectors, torch.zeros_like(square), DISTANCE_PER_BIT * float(square.mean()))


def cheapest(
    codebooks: Sequence[Codebook], bits: Callable[[Tensor], Tensor] | None
) -> Callable[[Tensor, Tensor | None, int], Tensor]:
    """Return the choice of codes in `descend`, by distance and, with `bits`, by them.

    Bits are those given the codes of the step before; in step 0 those without a context. With several
    codebooks each quantises a part of the targets, and the codes of their parts take turns.
    """
    count, given = len(codebooks), [book.bits[:, None] for book in codebooks]

    def choose(targets: Tensor, before: Tensor | None, step: int) -> Tensor:
        nonlocal given
        if bits is not None and before is not None and step % PRIOR_INTERVAL == 1:
            found = bits(before)
            given = [found[..., place::count] for place in range(count)]
        parts = torch.split(targets, [book.vectors.shape[1] for book in codebooks], 1)
        chosen = []
        for (vectors, _, distance_per_bit), part, rate in zip(codebooks, parts, given, strict=True):
            costs = vectors.square().sum(1)[:, None] + distance_per_bit * rate
            chosen.append((costs - 2 * vectors @ part).argmin(1))
        return torch.stack(chosen, 2).flatten(1)

    return choose


def size_of(codebooks: Sequence[Codebook]) -> float:
    """Return the RMS of the numbers in the vectors of codebooks, as often as they are used."""
    squares = [(-math.log(2) * book.bits).softmax(0) @ book.vectors.square() for book in codebooks]
    return float(torch.cat(squares).mean().sqrt())


@torch.no_grad()
def find_codes(
    codec: AudioVQVAE,
    samples: Tensor,
    effort: int,
    bits: Callable[[Tensor], Tensor] | None,
    latents: Tensor | None = None,
) -> Tensor:
    """Search the codes of audio.

    Args:
        codec: the model.
        samples: float32 [1, 1, N] in -1..1, N a multiple of the stride.
        effort: 0 and 1, the nearest codes; 2 and 3, also by the distance of these samples' spectra after
            decoding, in 10 and 20 steps, never above that of the nearest codes. Audio shorter than half the
            longest window gets the nearest codes.
        bits: of codes in context, see `bits_of`; None: use distances alone.
        latents: of the samples, where they are known.

    Returns:
        int64 [1, N / stride].
    """
    latents = codec.latents(samples) if latents is None else latents
    if not searches(samples, effort):
        return codec.quantizer.encode(latents)
    codebook = Codebook.of(codec.quantizer, searching=True)
    return descend(
        latents,
        codec.normalised,
        cheapest([codebook], bits),
        codec.quantizer.decode,
        lambda vectors: codec.spectral_distance(codec.reconstruct(vectors), samples),
        STEPS[effort],
        size_of([codebook]),
    )


@torch.no_grad()
def descend(
    latents: Tensor,
    normalised: Callable[[Tensor], Tensor],
    choose: Callable[[Tensor, Tensor | None, int], Tensor],
    vectors: Callable[[Tensor], Tensor],
    error: Callable[[Tensor], Tensor],
    steps: int,
    size: float,
) -> Tensor:
    """Search codes of latents.

    Args:
        latents: what the encoder computes, [1, D, n].
        normalised: from latents to the inputs of the quantizer.
        choose: codes for inputs of the quantizer, the codes of the step before (None: there is none), and the
            number of the step; those of step 0 are the start.
        vectors: of codes, [1, T] -> [1, D, n].
        error: of decoded vectors, to be minimised.
        steps: of gradient descent.
        size: RMS of the codebook.

    Returns:
        The codes with the smallest error, never above that of the start.
    """
    step_size = STEP_SIZE * size / steps**0.5
    slope, energy = torch.zeros_like(latents), torch.zeros_like(latents)
    codes = best = choose(normalised(latents), None, 0)
    least = math.inf
    for step in range(steps):
        with torch.enable_grad():
            free = latents.detach().requires_grad_()
            targets = normalised(free)
            found = error(targets + (vectors(codes) - targets).detach())
            (gradient,) = torch.autograd.grad(found, free)
        if float(found.detach()) < least:
            best, least = codes, float(found.detach())
        slope.lerp_(gradient, 1 - BETAS[0])
        energy.lerp_(gradient.square(), 1 - BETAS[1])
        mean, deviation = (m / (1 - d ** (step + 1)) for m, d in zip((slope, energy), BETAS, strict=True))
        latents = latents - step_size * (1 - 0.9 * step / steps) * mean / (deviation.sqrt() + 1e-8)
        codes = choose(normalised(latents), codes, step + 1)
    return best
