"""A model of a third kind: two planes of different stride, and a prior of the second given the first."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from vqcodec.bitstream.container import LEARNED
from vqcodec.models.base import LossStep, Model, OperatingPoint, Plane
from vqcodec.priors import base, settings


@dataclass(frozen=True)
class Config(settings.Config):
    levels: int = settings.setting(16, low=2, high=256)


class TwoPlanes(Model):
    """Means of 8x8 pixels, and what means of 4x4 differ by from them, in learned levels of grey."""

    medium, channels, axes, method, stride = "image", 3, 2, "two planes", 8
    decoding = ("levels",)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config, count = config, config.levels
        self.levels = nn.Parameter(torch.linspace(-1, 1, count))
        self.register_buffer("counts", torch.ones(count + 1, count))  # the last row: of the first plane

    def at(self, index, effort=1):
        return TwoPlanesPoint(self, index, effort)

    def loss(self, samples):
        symbols = self.at(0).analyse(samples)
        error = F.mse_loss(self.at(0).synthesise(symbols), samples)
        return LossStep(error, {"distortion": error}, symbols)

    def update(self, step, progress, generator):
        top, bottom = (step.symbols[name] for name in ("top", "bottom"))
        above = top.repeat_interleave(2, 1).repeat_interleave(2, 2)
        rows = torch.cat((above.flatten(), torch.full_like(top.flatten(), self.config.levels)))
        self.counts.index_put_((rows, torch.cat((bottom.flatten(), top.flatten()))), torch.ones(()), True)
        return {}

    def export(self):
        shares = (self.counts / self.counts.sum(1, keepdim=True)).double().numpy()
        table = 1 + np.floor(shares * (base.TOTAL - self.config.levels)).astype(np.uint32)
        table[:, 0] += base.TOTAL - table.sum(1, dtype=np.int64).astype(np.uint32)
        return self.equipped(priors={LEARNED: TopThenBottom(table)})

    def priors_from(self, card, tensors):
        return {LEARNED: TopThenBottom(tensors["prior.table"])}


@dataclass(frozen=True)
class TwoPlanesPoint(OperatingPoint):
    halo = 0
    planes = property(
        lambda self: [Plane(n, s, 1, self.model.config.levels) for n, s in (("top", 8), ("bottom", 4))]
    )

    def analyse(self, samples):
        grey, levels = samples.mean(1, keepdim=True), self.model.levels
        top = (F.avg_pool2d(grey, 8)[:, 0, ..., None] - levels).abs().argmin(-1)
        rest = F.avg_pool2d(grey, 4) - F.interpolate(levels[top][:, None], scale_factor=2)
        return {"top": top, "bottom": (rest[:, 0, ..., None] - levels / 2).abs().argmin(-1)}

    def synthesise(self, symbols, seed=0, progress=None):
        top, bottom = (self.model.levels[symbols[name].long()][:, None] for name in ("top", "bottom"))
        grey = F.interpolate(top, scale_factor=2) + bottom / 2
        return F.interpolate(grey, scale_factor=4).expand(-1, 3, -1, -1)


@dataclass(frozen=True, eq=False)
class TopThenBottom(base.Prior):
    """p(top) p(bottom | top), each symbol by itself."""

    table: np.ndarray

    def to_tensors(self):
        return {"prior.table": self.table}

    def scan(self, known, index):
        def step(number, plane):
            return base.Step(number, plane, [(*np.indices(s[plane].shape).reshape(2, -1),) for s in known])

        def models(step):
            for symbols, (rows, columns) in zip(known, step.positions, strict=True):
                above = symbols["top"][rows // 2, columns // 2] if step.number else np.full_like(rows, -1)
                yield base.Categorical(self.table[above])

        return SimpleNamespace(steps=[step(0, "top"), step(1, "bottom")], models=models)
