"""Inspect a model over data: what its latents or codes are used for.

Models with one latent vector per picture: the figures of `evaluation.latents`. Models with codebooks: how the
codes are used. Variable-rate models: the bits of each channel of latents.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from .. import media, weights
from ..bitstream.container import LEARNED
from ..bitstream.quality import DEFAULT_QUALITY, LAST_INDEX, index_of
from ..errors import UsageError
from ..evaluation import disentanglement, latents
from ..metrics.image import code_use
from ..models import LatentModel
from ..models.base import Json, Model, OperatingPoint
from ..pipeline.sampling import image_grid
from ..priors.gaussian_tables import Gaussian
from ..transform.pixels import to_pixels
from . import datasets
from .validation import MEDIA

TRAVERSED = 10
"""Units of a traversal, those of the largest rate."""

STEPS = 9
"""Pictures in a row of a traversal or an interpolation."""


class Inspection:
    """A model and data that it is inspected over.

    Args:
        model: a shipped model's name, or a .safetensors file.
        data: folders, tar files, single files; sets of small pictures.
        binarise: how bytes become 0 or 1, as in `training.train`; dynamic is drawn once.
        count: pictures or files to use, evenly chosen; None: all.
        seed: of all samples.
        device: "auto", "cpu", "cuda[:N]" or "mps".

    Raises:
        UsageError: no such model, data or device, or data that are not for the model.
        TrainingError: no file could be read.
    """

    def __init__(
        self,
        model: str | Path,
        data: Sequence[str | Path],
        *,
        binarise: str | None = None,
        count: int | None = None,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.model: Model = weights.load(model, weights.choose_device(device))
        self.seed = seed
        kind = self.model
        files = datasets.entries([Path(p) for p in data])
        found = datasets.load(files, kind.medium, whole=True, rate=kind.rate, multiple=kind.stride)
        if kind.binary:
            found = datasets.binarised(found, binarise or "none", seed, dynamic=False)
        elif binarise is not None:
            raise UsageError(f"{kind.card.name} is not for pixels of 0 and 1", "leave out --binarise")
        self.skipped = found.skipped
        self.arrays = found.arrays
        if count is not None:
            self.arrays = self.arrays[:: -(-len(self.arrays) // count)]

    @property
    def latent(self) -> LatentModel:
        """The model, as one with one latent vector per picture.

        Raises:
            UsageError: it is another.
        """
        if not isinstance(self.model, LatentModel):
            raise UsageError(
                f"{self.model.card.name} has no single latent vector per picture",
                "for vae-bits, vae-thumbnail, beta-vae, delta-vae, vae-gan",
            )
        return self.model

    def figures(self, *, importance: int = 0, scores: bool = False) -> Json:
        """Measure the model: a JSON object.

        Args:
            importance: samples of the importance-weighted bound; 0: it is left out.
            scores: whether to score how units tell factors of sprites, see `evaluation.disentanglement`.

        Raises:
            UsageError: the options or the pictures are not for the model.
        """
        record: Json = {"model": self.model.card.name, "method": self.model.method}
        record["files"] = len(self.arrays)
        if isinstance(self.model, LatentModel) or importance or scores:
            record |= self._latent_figures(importance)
            return record | (self._scores() if scores else {})
        best, usual = (self.model.at(index, effort=0) for index in (LAST_INDEX, index_of(DEFAULT_QUALITY)))
        return record | {"planes": [*_codebooks(best, self.arrays), *_channels(usual, self.arrays)]}

    def _latent_figures(self, importance: int) -> Json:
        model = self.latent
        found = latents.measure(self.arrays, model, importance=importance, seed=self.seed)
        record = {name: value for name, value in asdict(found).items() if value is not None}
        record |= {"units": found.units, "ln_mixture": math.log(found.mixture), "collapsed": found.collapsed}
        if found.noise_variance is not None:
            record["implied_variance"] = found.noise_variance * model.rate_weight
        if not importance:
            del record["samples"]
        if found.collapsed:
            record["cures"] = cures(model)
        return record

    @torch.inference_mode()
    def _scores(self) -> Json:
        model = self.latent
        if model.config.side != disentanglement.SIDE or model.config.channels != 1:
            raise UsageError("sprites are gray and 32x32", "for models of --set side=32 --set channels=1")

        def represent(factors: disentanglement.Factors) -> np.ndarray:
            pixels = torch.from_numpy(disentanglement.render(factors))[:, None]
            x = (pixels.to(model.device).float() / 255).contiguous()
            means: np.ndarray = model.posterior(x).mean.double().cpu().numpy()
            return means

        return asdict(disentanglement.scores(represent, self.seed))

    @torch.inference_mode()
    def traverse(self) -> media.Image:
        """Draw what units do: a row each, by falling rate, its latent from -2 to 2 in the first picture's."""
        model = self.latent
        posteriors = [model.posterior(x) for x in latents.pictures(self.arrays, model)]
        rates = torch.cat([model.kl(posterior) for posterior in posteriors]).mean(0)
        order = rates.argsort(descending=True)[:TRAVERSED]
        z = posteriors[0].mean[:1].repeat(len(order) * STEPS, 1)
        values = torch.linspace(-2, 2, STEPS, device=z.device).repeat(len(order))
        z[torch.arange(len(z)), order.repeat_interleave(STEPS)] = values
        return self._grid(z)

    @torch.inference_mode()
    def interpolate(self, first: int, second: int) -> media.Image:
        """Draw the way from one picture to another, by their numbers: the latents between their means.

        Raises:
            UsageError: no such picture.
        """
        for number in (first, second):
            if not 0 <= number < len(self.arrays):
                raise UsageError(f"no picture {number}", f"give 0 to {len(self.arrays) - 1}")
        model = self.latent
        x = torch.cat([*latents.pictures([self.arrays[first], self.arrays[second]], model)])
        mean = model.posterior(x).mean
        return self._grid(
            torch.lerp(mean[:1], mean[1:], torch.linspace(0, 1, STEPS, device=x.device)[:, None])
        )

    def _grid(self, z: torch.Tensor) -> media.Image:
        with torch.random.fork_rng([]):
            torch.manual_seed(self.seed)
            samples = self.latent.decode(z).expand(-1, 3, -1, -1) * 2 - 1
        return image_grid([media.Image(one) for one in to_pixels(samples)], columns=STEPS)


def cures(model: LatentModel) -> list[str]:
    """Return two ways to train a model that does not collapse, as options of `vqcodec train`."""
    found, settings = [], model.config.to_json()
    if model.config.variance:
        found.append("--set variance=0 (learn the variance of the likelihood)")
    if settings.get("decoder", "factorised") != "factorised":
        found.append("--set context_dropout=1 (a decoder that sees less of the picture at first)")
    found.append("-m beta-vae --set beta=1 --set free_bits=0.25 (a rate that costs nothing)")
    if "delta" not in settings:
        found.append("-m delta-vae (a committed rate)")
    return found[:2]


def _codebooks(point: OperatingPoint, arrays: Sequence[np.ndarray]) -> list[Json]:
    """How the codes of each plane of indices are used, at the quality that has all of them."""
    medium = MEDIA[point.model.medium]
    counts = {plane.name: np.zeros(plane.alphabet, np.int64) for plane in point.planes if plane.alphabet}
    for array in arrays if counts else ():
        for region in medium.analyse(array, point):
            for name, histogram in counts.items():
                histogram += np.bincount(region[name].ravel(), minlength=len(histogram))
    found: list[Json] = []
    for name, histogram in counts.items():
        use = code_use(histogram)
        dead = len(histogram) - use.used
        found.append({"plane": name, "codes": len(histogram), "codes_used": use.used, "dead_codes": dead})
        found[-1] |= {"perplexity": use.perplexity, "bits_per_code": use.entropy_bits}
    return found


@torch.inference_mode()
def _channels(point: OperatingPoint, arrays: Sequence[np.ndarray]) -> list[Json]:
    """The bits per pixel of each channel of planes of latents, under the learned prior."""
    medium, prior = MEDIA[point.model.medium], point.model.priors.get(LEARNED)
    planes = {plane.name: plane for plane in point.planes if not plane.alphabet}
    if prior is None or not planes:
        return []
    bits = {name: np.zeros(plane.depth) for name, plane in planes.items()}
    pixels = 0
    for array in arrays:
        window = medium.window(array, point)
        pixels += math.prod(window.shape[:2])
        found = point.analyse(medium.to_tensor(window).to(point.device))
        targets = {name: tensor[0].cpu().numpy() for name, tensor in found.items()}
        known = {plane.name: plane.empty(targets[plane.name].shape[:2]) for plane in point.planes}
        scan = prior.scan([known], point.index)
        for step in scan.steps:
            for positions, model in zip(step.positions, scan.models(step), strict=True):
                chosen = point.quantise(step, targets[step.plane][positions], model)
                known[step.plane][positions] = model.values(chosen)
                if isinstance(model, Gaussian):
                    channels = np.arange(planes[step.plane].depth)[positions[2]]
                    bits[step.plane][channels] += model.tables.bits(chosen, model.scale_indexes).sum(0)
    return [
        {
            "plane": name,
            "channels": len(total),
            "channels_used": int((total > 0.001 * total.sum()).sum()),
            "bpp": float(total.sum() / pixels),
            "bpp_by_channel": (total / pixels).tolist(),
        }
        for name, total in bits.items()
    ]
