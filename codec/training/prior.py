"""A learned prior in training: the codec stays as it is, the network learns p(codes) from what it encodes.

The priors of several planes are trained one after the other, each given the codes of the planes before.

This is the second stage of van den Oord et al. 2017 (section 3.3): the uniform prior of the codec's training
is replaced by an autoregressive one, by maximum likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..bitstream.container import LEARNED
from ..errors import UsageError
from ..models.base import Card, Figures, Json, LossStep, Model, Plane, RoundTrip, Trainable
from ..priors import PRIORS
from ..priors.chain import ChainPrior
from ..priors.learned import LearnedPrior
from ..priors.settings import Config

START_BATCHES = 8
"""Batches whose codes are counted before the first step."""


@dataclass
class Analysis:
    """A codec as a function, whose weights are no part of the network that learns from it."""

    codec: Model

    @property
    def planes(self) -> tuple[Plane, ...]:
        """All planes of the codec."""
        return self.codec.at(self.codec.validation_points[-1]).planes

    def __call__(self, samples: Tensor) -> dict[str, Tensor]:
        """Codes of samples by plane, int64 [B, ...]."""
        with torch.no_grad():
            point = self.codec.at(self.codec.validation_points[-1], effort=0)
            return {name: codes.long() for name, codes in point.analyse(samples).items()}

    def to(self, device: torch.device) -> Self:
        """Move the codec, once."""
        if self.codec.device != device:
            self.codec.to(device)
        return self


class PriorFit(Trainable):
    """The learned prior of one plane of indices of a codec.

    The codec is no part of its state: it is read from the weights that the training starts from.

    Args:
        method: a key of `PRIORS`.
        config: settings of the network.
        codec: a copy of its own, since it moves to the device of the network.
        plane: whose codes are learned; "" of a codec that has one.
    """

    def __init__(self, method: str, config: Config, codec: Model, plane: str = "") -> None:
        super().__init__()
        self.method, self.config = method, config
        self.analysis = Analysis(codec)
        names = [p.name for p in self.analysis.planes]
        found = names.index(plane) if plane in names else 0
        # The network is given the codes of these planes: its own, and where it needs them those before.
        self.inputs = [names[found], *names[:found]] if PRIORS[method].given else [names[found]]
        codebooks = [book for name in self.inputs if (book := codec.codebook(name)) is not None]
        if (len(names) > 1 and not plane) or len(codebooks) < len(self.inputs):
            raise UsageError(f"{codec.card.name} has no codebook for a prior to be over", "another --from")
        self.plane = self.analysis.planes[found]
        self.network = PRIORS[method].network(config, *(book.cpu().float() for book in codebooks))

    @property
    def codec(self) -> Model:
        """The codec whose codes are learned, on the device of the network."""
        return self._analyse.codec

    @property
    def _analyse(self) -> Analysis:
        return self.analysis.to(self.network.embedding.device)

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """As in `Trainable.start`: a prior of the same settings that the codec has, or a histogram."""
        del generator
        learned = self.codec.priors.get(LEARNED)
        if isinstance(learned, ChainPrior):
            learned = learned.by_plane[self.plane.name]
        if isinstance(learned, LearnedPrior):
            try:
                self.network.take(learned)
            except ValueError:
                pass
            else:
                return
        counts = torch.ones(len(self.network.logits.bias))
        with torch.no_grad():
            for number in range(START_BATCHES):
                codes = self._analyse(draw(number).to(self.codec.device))[self.plane.name]
                counts += self.network.histogram(codes).cpu()
            self.network.logits.bias.copy_((counts / counts.mean()).log())

    def loss(self, samples: Tensor) -> LossStep:
        """-log p(codes) in nats per code."""
        codes = self._analyse(samples)
        return LossStep(self.nats(codes), symbols=codes)

    def nats(self, codes: Mapping[str, Tensor]) -> Tensor:
        """-log p in nats per code of the plane, from the codes of all planes, int64 [B, ...]."""
        logits = self.network(*(codes[name] for name in self.inputs)).movedim(1, -1).flatten(0, -2)
        return F.cross_entropy(logits.float(), codes[self.plane.name].flatten())

    def log_figures(self, terms: Mapping[str, float]) -> dict[str, float]:
        """As in `Trainable.log_figures`: bits per code."""
        return {"bits": terms["loss"] / math.log(2)}

    def round_trip(self, samples: Tensor, index: int = 0) -> RoundTrip:
        """As in `Trainable.round_trip`: the bits of the codes, by the network in training."""
        del index
        codes = self._analyse(samples)
        count = codes[self.plane.name].numel()
        bits = float(self.nats(codes)) * count / math.log(2)
        return RoundTrip(codes, bits=bits, units=count)

    def load_from(self, other: Model, count: float) -> None:
        """Nothing: `start` looks at the codec."""
        del other, count

    def export(self) -> Model:
        """As in `Trainable.export`: the codec with the prior as it is now."""
        name = self.plane.name
        return self.codec.with_prior(name, replace(self.network.export(), plane=name))

    def make_card(self, name: str, training: Figures, measured: Figures) -> Card:
        """As in `Trainable.make_card`: the codec's card, with what there is to say about the prior."""
        learned: Json = {
            "method": self.method,
            "config": self.config.to_json(),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "measured": {"validation": dict(measured)},
            "training": training,
        }
        del name  # it stays that of the codec
        if self.codec.prior_methods:
            before = (self.codec.card.learned or {}).get("planes", {})
            learned = {"planes": {**before, self.plane.name: learned}, "measured": learned["measured"]}
        return replace(self.codec.card, learned=learned)
