"""What learned priors have in common: integers by name, a fingerprint, a way to draw."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import ModelError
from . import exact
from .base import Array, Categorical, Frequencies, Prior

PREFIX = "learned."
"""Of the names that its arrays have in a weight file."""

GROUP = 256
"""Codes whose frequencies are made at a time, at least: they stay in the cache until they are coded."""


@dataclass(frozen=True, eq=False)
class IntegerNetwork(Prior):
    """Layers of integers by name.

    Attributes:
        arrays: "NAME.weight", "NAME.bias", "NAME.shift" of every layer, and others of the network's own.
        carrier: the type that carries them, float32 or float64; the result is the same.

    Raises:
        ModelError: on construction, if an array is missing or is not what it should be.
    """

    arrays: Mapping[str, Array]
    carrier: torch.dtype = torch.float32
    layers: dict[str, exact.Affine] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        names = sorted({name.rpartition(".")[0] for name in self.arrays} - {""})
        try:
            layers = {
                name: exact.Affine(*(self.arrays[f"{name}.{part}"] for part in ("weight", "bias", "shift")))
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
        """4 bytes of the SHA-256 over all integers, which a card names."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            array = self.arrays[name]
            shape = "x".join(map(str, array.shape))
            digest.update(f"{name} {array.dtype.name} {shape}".encode())
            digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
        return digest.digest()[:4]

    def carried_by(self, carrier: torch.dtype) -> Self:
        """The same network in another type."""
        return replace(self, carrier=carrier)

    def to_tensors(self) -> dict[str, Array]:
        """Its integers by the names they have in a weight file."""
        return {PREFIX + name: array for name, array in self.arrays.items()}

    def scaled(self, name: str) -> tuple[Array, Array]:
        """Weight [I, O] and bias [O] of a layer times 2**-shift: floor(x weight + bias) is the layer."""
        weight, bias = self.layers[name].scaled(self.carrier)
        return weight.numpy(), bias.numpy()

    def fits(self, name: str, inputs: int, outputs: int | None = None) -> int:
        """Check a layer's shape; its outputs.

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
class LearnedPrior(IntegerNetwork):
    """p(code | codes before it).

    Attributes:
        arrays: also "embedding", int8 [K or more, E].
        temperature, top_k: see `exact.reshaped`; coding has neither.
        plane: whose indices they are.
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
        """K."""
        return len(self.layers["logits"].bias)

    @cached_property
    def embedding(self) -> Tensor:
        """[K or more, E], carried."""
        return torch.from_numpy(self.arrays["embedding"]).to(self.carrier)

    @property
    def prior_id(self) -> bytes:
        """2 bytes of the fingerprint: they tell apart the few priors that a model ever has."""
        return self.fingerprint[:2]

    def reshaped(self, temperature: float, top_k: int | None) -> Self:
        """The same prior for drawing."""
        return replace(self, temperature=temperature, top_k=top_k)

    def categoricals(self, logits: Array, counts: Sequence[int]) -> Iterator[Categorical]:
        """Entropy models of regions that have so many codes each, from the logits of all of them, [N, K]."""
        first = at = 0
        waiting: list[int] = []
        for number, count in enumerate(counts):
            waiting.append(count)
            at += count
            if at - first >= GROUP or number == len(counts) - 1:
                shares, start = self._shares(logits[first:at]), 0
                for size in waiting:
                    yield Categorical(shares[start : start + size])
                    start += size
                first, waiting = at, []

    def _shares(self, logits: Array) -> Frequencies:
        if self.temperature != 1 or self.top_k is not None:
            logits = exact.reshaped(logits, self.temperature, self.top_k)
        return exact.frequencies(logits)


class Network(nn.Module):
    """A network in training whose integers are a prior: layers by name, an embedding, a head on the codebook.

    Logits are a linear map of features, whose weights are the sum of a matrix of their own and of the
    codebook times `direction`: codes that look alike are likely together from the first step.
    """

    codebook: Tensor
    embedding: nn.Parameter
    logits: exact.Linear

    def __init__(self, codebook: Tensor, rows: int, embedding: int, features: int) -> None:
        """Start from a codebook.

        Args:
            codebook: [K, D]; brought to unit variance it fills the first numbers of the embedding.
            rows: of the embedding, K or more.
            embedding: numbers that stand for a code.
            features: that logits are a linear map of.
        """
        super().__init__()
        count, size = codebook.shape
        unit = codebook / codebook.std(0).clamp(min=1e-6)
        self.register_buffer("codebook", unit)
        table = torch.randn(rows, embedding) * 0.5
        shared = min(size, embedding)
        table[:count, :shared] = unit[:, :shared]
        self.embedding = nn.Parameter(table)
        self.logits = exact.Linear(features, count, exact.ACTIVATION, exact.LOGIT, 0.1)
        self.direction = nn.Parameter(torch.randn(size, features) * 0.1 / features**0.5)

    def layers(self) -> dict[str, exact.Linear]:
        """All layers but the last, by the names that they have in coding."""
        raise NotImplementedError

    def arrays(self) -> dict[str, Array]:
        """The integers of a `LearnedPrior`.

        Raises:
            ModelError: a layer is beyond what is exact.
        """
        integers = torch.round(self.table().detach().cpu() * 2**exact.ACTIVATION)
        arrays: dict[str, Array] = {"embedding": integers.numpy().astype(np.int8)}
        layers = {name: layer.export() for name, layer in self.layers().items()}
        layers["logits"] = self.logits.export(self.head())
        for name, layer in layers.items():
            arrays |= {f"{name}.{part}": getattr(layer, part) for part in ("weight", "bias", "shift")}
        return arrays

    def export(self) -> LearnedPrior:
        """The network in integers.

        Raises:
            ModelError: a layer is beyond what is exact.
        """
        raise NotImplementedError

    @torch.no_grad()
    def take(self, prior: LearnedPrior) -> None:
        """Continue from the integers of a prior.

        Raises:
            ValueError: it is one of other settings; nothing is changed then.
        """
        layers = {**self.layers(), "logits": self.logits}
        if {name: tuple(layer.weight.shape) for name, layer in layers.items()} != {
            name: layer.weight.shape for name, layer in prior.layers.items()
        }:
            raise ValueError("other layers")
        table = torch.from_numpy(prior.arrays["embedding"].astype(np.float32)) / 2**exact.ACTIVATION
        if table.shape != self.embedding.shape:
            raise ValueError("another embedding")
        for name, layer in layers.items():
            layer.take(prior.layers[name])
        self.embedding.copy_(table)
        self.direction.zero_()

    def table(self) -> Tensor:
        """The embedding as it is coded with."""
        return exact.embedded(self.embedding)

    def head(self) -> Tensor:
        """Weights of the logits."""
        return self.logits.weight + self.codebook @ self.direction
