"""Learned priors in integers: layers by name, a fingerprint, frequencies from logits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import ModelError
from . import exact
from .base import GROUP, Array, Categorical, Codes, Frequencies, PlanePrior, Prior

PREFIX = "learned."
"""Prefix of the names of its arrays in a weights file."""


def fingerprint(arrays: Mapping[str, Array]) -> bytes:
    """4 bytes of the SHA-256 over integers by name."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = arrays[name]
        shape = "x".join(map(str, array.shape))
        digest.update(f"{name} {array.dtype.name} {shape}".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return digest.digest()[:4]


@dataclass(frozen=True, eq=False)
class IntegerNetwork(Prior):
    """A prior whose network is in integers: layers by name.

    Attributes:
        arrays: "NAME.weight", "NAME.bias", "NAME.shift" of every layer, and others of the network's own.
        dtype: float32 or float64, the type that holds the integers in computing; the result is the same.

    Raises:
        ModelError: on construction, if an array is missing or has another shape or type.
    """

    arrays: Mapping[str, Array]
    dtype: torch.dtype = torch.float32
    layers: dict[str, exact.IntegerLinear] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = sorted({name.rpartition(".")[0] for name in self.arrays} - {""})
        try:
            layers = {
                name: exact.IntegerLinear(
                    *(self.arrays[f"{name}.{part}"] for part in ("weight", "bias", "shift"))
                )
                for name in names
            }
        except KeyError as missing:
            raise ModelError(f"a prior without {missing.args[0]}") from None
        object.__setattr__(self, "layers", layers)
        self.check()

    def check(self) -> None:
        """Refuse arrays that do not fit each other.

        Raises:
            ModelError: they do not.
        """
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> bytes:
        """First 4 bytes of the SHA-256 over all integers, as in a card."""
        return fingerprint(self.arrays)

    def with_dtype(self, dtype: torch.dtype) -> Self:
        """Return the same network computed in another dtype."""
        return replace(self, dtype=dtype)

    def to_tensors(self) -> dict[str, Array]:
        """Return its integers by their names in a weights file."""
        return {PREFIX + name: array for name, array in self.arrays.items()}

    def scaled(self, name: str) -> tuple[Array, Array]:
        """Return weight [I, O] and bias [O] of a layer, times 2**-shift: y = floor(x weight + bias)."""
        weight, bias = self.layers[name].scaled(self.dtype)
        return weight.numpy(), bias.numpy()

    def fits(self, name: str, inputs: int, outputs: int | None = None) -> int:
        """Check a layer's shape, and return the number of its outputs.

        Raises:
            ModelError: no such layer, or another shape.
        """
        layer = self.layers.get(name)
        if layer is None:
            raise ModelError(f"a prior without {name}")
        found = layer.weight.shape
        if found[1] != inputs or outputs not in (None, found[0]):
            raise ModelError(f"{name} of a prior is {found}, not {(outputs or found[0], inputs)}")
        return int(found[0])


@dataclass(frozen=True, eq=False)
class LearnedPrior(IntegerNetwork, PlanePrior):
    """p(code | codes before it), by an autoregressive network.

    Attributes:
        arrays: also "embedding", int8 [K or more, E].
        temperature, top_k: see `exact.reshaped`; unused in coding.
        plane: name of the plane of these codes.
    """

    temperature: float = 1.0
    top_k: int | None = None
    plane: str = "codes"

    def __post_init__(self) -> None:
        embedding = self.arrays.get("embedding", np.zeros(0))
        if embedding.dtype != np.int8 or embedding.ndim != 2 or (embedding == -128).any():
            raise ModelError("the embedding of a prior must be int8")
        if "logits.weight" not in self.arrays:
            raise ModelError("a prior without logits")
        super().__post_init__()

    @property
    def alphabet_size(self) -> int:
        """Size K of the codebook."""
        return len(self.layers["logits"].bias)

    @cached_property
    def embedding(self) -> Tensor:
        """Embedding, [K or more, E], in this dtype."""
        return torch.from_numpy(self.arrays["embedding"]).to(self.dtype)

    @property
    def prior_id(self) -> bytes:
        """First 2 bytes of the fingerprint: enough to distinguish the few priors of a model."""
        return self.fingerprint[:2]

    def reshaped(self, temperature: float, top_k: int | None, plane: str | None = None) -> Self:
        """Return the same prior with other probabilities, for sampling, as in `Prior.reshaped`."""
        if plane not in (None, self.plane):
            return self
        return replace(self, temperature=temperature, top_k=top_k)

    def coded(
        self, codes: Codes, logits: Array, order: NDArray[np.intp]
    ) -> Iterator[tuple[Codes, Categorical]]:
        """Yield codes that are all known with their probabilities, as in `Prior.in_parallel`.

        Args:
            codes: [N].
            logits: [N, K].
            order: of coding, [N].
        """
        for first in range(0, len(order), GROUP):
            chosen = order[first : first + GROUP]
            yield codes[chosen], Categorical(self._frequencies(logits[chosen]))

    def categoricals(self, logits: Array, counts: Sequence[int]) -> Iterator[Categorical]:
        """Yield the entropy model of each region.

        Args:
            logits: of the codes of all regions, [N, K].
            counts: number of codes of each region, summing to N.
        """
        first = end = 0
        pending: list[int] = []
        for region, count in enumerate(counts):
            pending.append(count)
            end += count
            if end - first >= GROUP or region == len(counts) - 1:
                frequencies, start = self._frequencies(logits[first:end]), 0
                for size in pending:
                    yield Categorical(frequencies[start : start + size])
                    start += size
                first, pending = end, []

    def _frequencies(self, logits: Array) -> Frequencies:
        if self.temperature != 1 or self.top_k is not None:
            logits = exact.reshaped(logits, self.temperature, self.top_k)
        return exact.frequencies(logits)


def unit_embedding(codebook: Tensor, rows: int, size: int) -> Tensor:
    """An embedding to start from, [rows, size]: codes [K, D] of unit variance fill the first numbers."""
    table = torch.randn(rows, size) * 0.5
    unit = codebook / codebook.std(0).clamp(min=1e-6)
    shared = min(unit.shape[1], size)
    table[: len(unit), :shared] = unit[:, :shared]
    return table


class Network(nn.Module):
    """The network of a learned prior in training: layers by name, an embedding, a head tied to the codebook.

    Logits are a linear map of features, whose weights are the sum of a free matrix and of the codebook times
    `direction`: similar codes get similar probabilities from the first step.
    """

    codebook: Tensor
    embedding: nn.Parameter
    logits: exact.QATLinear

    def __init__(self, codebook: Tensor, rows: int, embedding: int, features: int) -> None:
        """Start from a codebook.

        Args:
            codebook: [K, D]; scaled to unit variance, it initialises the first dimensions of the embedding.
            rows: of the embedding, K or more.
            embedding: dimensions of the embedding.
            features: inputs of the last layer, which computes the logits.
        """
        super().__init__()
        count, size = codebook.shape
        unit = codebook / codebook.std(0).clamp(min=1e-6)
        self.register_buffer("codebook", unit)
        self.embedding = nn.Parameter(unit_embedding(codebook, rows, embedding))
        self.logits = exact.QATLinear(features, count, exact.ACTIVATION_BITS, exact.LOGIT_BITS, 0.1)
        self.direction = nn.Parameter(torch.randn(size, features) * 0.1 / features**0.5)

    def layers(self) -> dict[str, exact.QATLinear]:
        """Return all layers but the last, by their names in coding."""
        raise NotImplementedError

    def histogram(self, codes: Tensor) -> Tensor:
        """Count codes, int64 [B, ...], by the logit that stands for each."""
        return torch.bincount(codes.flatten(), minlength=len(self.logits.bias))

    def arrays(self) -> dict[str, Array]:
        """Return the integers of a `LearnedPrior`, by name.

        Raises:
            ModelError: a layer exceeds the exact range of float32.
        """
        integers = torch.round(self.table().detach().cpu() * 2**exact.ACTIVATION_BITS)
        arrays: dict[str, Array] = {"embedding": integers.numpy().astype(np.int8)}
        layers = {name: layer.export() for name, layer in self.layers().items()}
        layers["logits"] = self.logits.export(self.head())
        for name, layer in layers.items():
            arrays |= {f"{name}.{part}": getattr(layer, part) for part in ("weight", "bias", "shift")}
        return arrays

    def export(self) -> LearnedPrior:
        """Return the network in integers.

        Raises:
            ModelError: a layer exceeds the exact range of float32.
        """
        raise NotImplementedError

    @torch.no_grad()
    def take(self, prior: LearnedPrior) -> None:
        """Load the integers of a prior, to continue its training.

        Raises:
            ValueError: the prior has other settings; the network is unchanged then.
        """
        layers = {**self.layers(), "logits": self.logits}
        if {name: tuple(layer.weight.shape) for name, layer in layers.items()} != {
            name: layer.weight.shape for name, layer in prior.layers.items()
        }:
            raise ValueError("other layers")
        table = torch.from_numpy(prior.arrays["embedding"].astype(np.float32)) / 2**exact.ACTIVATION_BITS
        if table.shape != self.embedding.shape:
            raise ValueError("another embedding")
        for name, layer in layers.items():
            layer.take(prior.layers[name])
        self.embedding.copy_(table)
        self.direction.zero_()

    def table(self) -> Tensor:
        """Return the embedding, rounded as in coding."""
        return exact.embedded(self.embedding)

    def head(self) -> Tensor:
        """Return the weights of the last layer, [K, features]."""
        return self.logits.weight + self.codebook @ self.direction
