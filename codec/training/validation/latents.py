"""Validation of models with one latent vector per picture, by the loss that is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import PIL.Image
import torch

from ... import media
from ...errors import CollapseWarning, warn
from ...evaluation import latents
from ...models import LatentModel
from ...models.base import Figures, Model, Trainable
from ...pipeline.sampling import image_grid
from ...transform.pixels import to_pixels

SHOWN = 8
"""Pictures, reconstructions and samples on a sheet, each."""

REPORTED = {
    *("elbo", "distortion", "rate", "active", "mutual_information"),
    *("bits_per_dimension", "noise_variance"),
}
"""Figures reported during a training; at its end all are."""


class Latents:
    """As in `Validation`: the ELBO, and what the latents carry."""

    headline = ("elbo", "ELBO, nats per picture")
    files = 2000

    def validate(self, model: Trainable, held_out: Sequence[np.ndarray]) -> tuple[float, Figures]:
        """As in `Validation.validate`: the figures of `evaluation.latents`.

        The score is minus the loss: the ELBO, but for other costs of the rate.
        """
        kind = _latent(model)
        found = latents.measure(list(held_out), kind)
        figures = {k: v for k, v in asdict(found).items() if k in REPORTED and v is not None}
        if found.collapsed:
            figures["collapsed"] = f"{found.units - found.active} of {found.units} units"
        return -found.distortion - float(kind.rate_cost(torch.tensor([found.kl]))), figures

    @torch.inference_mode()
    def preview_sheet(self, model: Trainable, held_out: Sequence[np.ndarray]) -> PIL.Image.Image:
        """As in `Validation.preview_sheet`: originals, the means of their posteriors decoded, samples."""
        kind = _latent(model)
        x = torch.cat([*latents.pictures(list(held_out)[:SHOWN], kind)])
        with torch.random.fork_rng([]):
            rows = [x, kind.decode(kind.posterior(x).mean)]
            sampled = kind.generate(len(x), seed=0)
        pixels = to_pixels(torch.cat([*(row.expand(-1, 3, -1, -1) * 2 - 1 for row in rows), sampled]))
        return PIL.Image.fromarray(image_grid([media.Image(one) for one in pixels], columns=len(x)).samples)

    def measured(self, model: Model, held_out: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        """As in `Validation.measured`: pictures are measured together, a hundred as fast as one alone."""
        del model
        return held_out[::100]

    def measure(self, model: Model, held_out: Sequence[np.ndarray]) -> Figures:
        """As in `Validation.measure`; a collapsed model warns."""
        found = latents.measure(list(held_out), _latent(model))
        if found.collapsed:
            idle = found.units - found.active
            warn(f"collapsed: {idle} of {found.units} units; vqcodec inspect names cures", CollapseWarning)
        return {name: value for name, value in asdict(found).items() if value is not None}


def _latent(model: object) -> LatentModel:
    if not isinstance(model, LatentModel):
        raise TypeError("a model without one latent vector per picture")
    return model
