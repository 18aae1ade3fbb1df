"""A learned prior in training: the codec stays as it is, the network learns p(codes) from what it encodes.

This is the second stage of van den Oord et al. 2017 (section 3.3): the uniform prior of the codec's training
is replaced by an autoregressive one, by maximum likelihood.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from ..priors import NETWORKS
from .vqvae import VQVAE


class PriorFit(nn.Module):
    """What the training loop asks of a model, for the prior of a codec.

    The codec is no part of its state: it is read from the weights that the training starts from.
    """

    critics = None
    slow: tuple[str, ...] = ()

    def __init__(self, config: Any, codec: VQVAE) -> None:
        super().__init__()
        self.config = config
        self._codec = (codec,)  # in a tuple, so that its weights are not this module's
        self.network = NETWORKS[type(config)](config, codec.quantizer.codebook.detach().cpu().float())
        self.medium, self.stride, self.axes = codec.medium, codec.stride, codec.axes
        self._last: Tensor | None = None

    @property
    def codec(self) -> VQVAE:
        """The codec whose codes are learned, on the device of the network."""
        codec = self._codec[0]
        device = next(self.network.parameters()).device
        return codec if codec.device == device else codec.to(device)

    @property
    def rate(self) -> int:
        """Samples a second, of sounds."""
        return self.codec.rate

    @property
    def codes(self) -> int:
        """K."""
        return self.codec.codes

    @property
    def method(self) -> str:
        """As cards name it."""
        return type(self.config).__module__.rpartition(".")[2]

    def start(self, draw: Callable[[int], Tensor], generator: torch.Generator) -> None:
        """Continue the codec's learned prior if it has the same settings; else begin as a histogram.

        Args:
            draw: gives the n-th batch of samples.
            generator: not needed.
        """
        del generator
        if self.codec.learned is not None:
            try:
                self.network.take(self.codec.learned)
            except ValueError:
                pass
            else:
                return
        counts = torch.ones(self.codes)
        with torch.no_grad():
            for number in range(8):
                codes = self.codec.analyse(draw(number).to(self.codec.device)).cpu()
                counts += torch.bincount(codes.flatten(), minlength=self.codes)
            self.network.logits.bias.copy_((counts / counts.sum()).log() + math.log(self.codes))

    def loss(self, samples: Tensor) -> dict[str, Tensor]:
        """-log p(codes) in nats per code, as "loss"."""
        with torch.no_grad():
            codes = self._last = self.codec.analyse(samples)
        return {"loss": self.cost(codes)}

    def cost(self, codes: Tensor) -> Tensor:
        """-log p in nats per code of codes int64 [B, ...]."""
        logits = self.network(codes).movedim(1, -1).flatten(0, -2)
        return F.cross_entropy(logits.float(), codes.flatten())

    def update(self, progress: float, generator: torch.Generator) -> dict[str, Any]:
        """Nothing follows a step; the codes of its batch."""
        del progress, generator
        return {"codes": self._last, "restarted": 0}

    def finished(self) -> VQVAE:
        """The codec with the prior as it is now.

        Raises:
            ModelError: a layer is beyond what is exact.
        """
        codec = self.codec
        codec.learned = self.network.export()
        return codec

    def describe(self, training: dict[str, Any], measured: dict[str, Any]) -> dict[str, Any]:
        """The codec's card, with what there is to say about the prior."""
        prior = {
            "method": self.method,
            "config": asdict(self.config),
            "parameters": sum(p.numel() for p in self.network.parameters()),
            "measured": {"validation": measured},
            "training": training,
        }
        return {**self.codec.card, "learned": prior}
