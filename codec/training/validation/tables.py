"""The static tables that a finished model is given."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from ...models.quantizers import kmeans
from ...models.vqvae import VQVAE
from ...priors import static
from ...weights import exported, fingerprint

CLASSES = 32
"""Classes of codes that make the context of the static tables."""


@torch.inference_mode()
def attach(model: VQVAE, regions: Iterable[np.ndarray], seed: int) -> None:
    """Count static tables over regions of codes and attach them to the model, with its new fingerprint.

    Args:
        model: trained.
        regions: int32 codes, [h, w] of a picture or [T] of a sound.
        seed: of the classes of codes.
    """
    codebook = model.quantizer.codebook.detach().cpu().float()
    count = min(CLASSES, model.config.codes)
    generator = torch.Generator().manual_seed(seed)
    centres = kmeans(codebook, count, generator, rounds=50)
    classes = torch.cdist(codebook, centres).argmin(1).numpy().astype(np.uint8)
    model.prior = static.StaticPrior(static.fit(static.counts(regions, classes, count)), classes)
    model.card["fingerprint"] = fingerprint(exported(model), model.decoding, model.card["config"])
