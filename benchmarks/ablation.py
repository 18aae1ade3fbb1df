"""Compare priors of a two-level model: with and without attention, with and without the coarser plane.

python benchmarks/ablation.py TRAINING_TAR ... --validation VALIDATION_TAR [--steps 400]

Both of a pair see the same codes in the same order, and have about as many parameters.
"""

import argparse
import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn
from vqcodec import weights
from vqcodec.priors import PRIORS
from vqcodec.training import datasets
from vqcodec.training.prior import Analysis

CROPS = {"top": 256, "bottom": 128}
"""Sides of crops in pixels: one block of attention, and what the bottom prior sees of its surroundings."""

VALIDATION_CROPS = 128


class Variant(NamedTuple):
    """A prior to train: its label, plane, method, and settings that differ from the default."""

    label: str
    plane: str
    method: str
    changed: dict[str, str]


VARIANTS = {
    "attention": Variant("top, attention", "top", "attentive-pixelcnn", {}),
    "cut": Variant("top, attention cut", "top", "attentive-pixelcnn", {"layers": "0", "blocks": "9"}),
    "given": Variant("bottom, given the top", "bottom", "conditional-pixelcnn", {}),
    "alone": Variant("bottom, alone", "bottom", "pixelcnn", {"blocks": "14"}),
}
"""A pair has about as many parameters: blocks take the place of what is cut."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="folders and tar files to train on")
    parser.add_argument("--validation", type=Path, required=True, help="folder or tar file")
    parser.add_argument("--model", default="vqvae2-image", help="name or file")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--crops", type=int, default=1024, help="training crops whose codes are kept")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    options = parser.parse_args()
    if options.crops < options.batch:
        parser.error("--crops below --batch")

    analysis = Analysis(weights.load(options.model, "cpu"))
    print(f"{options.steps} steps of {options.batch} crops, of {CROPS['top']} pixels for the top", end=" ")
    print(f"and {CROPS['bottom']} for the bottom; bits per code of validation crops.")
    print("\n| prior | parameters | bits |\n|---|---:|---:|", flush=True)
    found: dict[str, tuple[dict[str, Tensor], dict[str, Tensor]]] = {}
    for variant in (VARIANTS[name] for name in options.variants):
        if variant.plane not in found:
            crop = CROPS[variant.plane]
            found[variant.plane] = (
                codes_of(analysis, options.sources, options.crops, options.batch, crop),
                codes_of(analysis, [options.validation], VALIDATION_CROPS, options.batch, crop),
            )
        training, validation = found[variant.plane]
        torch.manual_seed(0)
        network, inputs = build(analysis, variant)
        learn(network, inputs, training, options)
        count = sum(p.numel() for p in network.parameters())
        print(f"| {variant.label} | {count:,} | {bits(network, inputs, validation):.4f} |", flush=True)


def codes_of(analysis: Analysis, sources: list[Path], count: int, batch: int, crop: int) -> dict[str, Tensor]:
    """Encode random crops: plane -> int64 [N, h, w]."""
    data = datasets.load(datasets.entries(sources))
    found: dict[str, list[Tensor]] = {plane.name: [] for plane in analysis.planes}
    for step in range(count // batch):
        codes = analysis(data.batch(step, seed=0, size=batch, crop=crop))
        for name, parts in found.items():
            parts.append(codes[name].short())
    return {name: torch.cat(parts).long() for name, parts in found.items()}


def build(analysis: Analysis, variant: Variant) -> tuple[nn.Module, list[str]]:
    """Make a network, and list the planes whose codes it is given."""
    entry = PRIORS[variant.method]
    inputs = ["bottom", "top"] if entry.given else [variant.plane]
    codebooks = [analysis.codec.codebook(name) for name in inputs]
    config = entry.config.with_values({name: int(value) for name, value in variant.changed.items()})
    return entry.network(config, *(book.float() for book in codebooks if book is not None)), inputs


def learn(
    network: nn.Module, inputs: list[str], codes: dict[str, Tensor], options: argparse.Namespace
) -> None:
    """Take the steps: AdamW, learning rate falling as a cosine, from the frequencies of the codes."""
    target = codes[inputs[0]]
    counts = network.histogram(target) + 1.0
    with torch.no_grad():
        network.logits.bias.copy_((counts / counts.sum()).log() + math.log(len(counts)))
    optimiser = torch.optim.AdamW(network.parameters(), lr=options.lr, betas=(0.9, 0.999))
    warmup = 50
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser,
        lambda n: min((n + 1) / warmup, 1) * 0.5 * (1 + math.cos(math.pi * n / options.steps)),
    )
    rng = np.random.default_rng(0)
    for _ in range(options.steps):
        chosen = torch.from_numpy(rng.integers(len(target), size=options.batch))
        optimiser.zero_grad()
        nats(network, inputs, {name: codes[name][chosen] for name in inputs}).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()


def nats(network: nn.Module, inputs: list[str], codes: dict[str, Tensor]) -> Tensor:
    """-log p in nats per code."""
    logits = network(*(codes[name] for name in inputs)).movedim(1, -1).flatten(0, -2)
    return F.cross_entropy(logits.float(), codes[inputs[0]].flatten())


@torch.no_grad()
def bits(network: nn.Module, inputs: list[str], codes: dict[str, Tensor]) -> float:
    """Bits per code."""
    parts = list(batches(codes))
    return sum(float(nats(network, inputs, part)) for part in parts) / len(parts) / math.log(2)


def batches(codes: dict[str, Tensor], size: int = 16) -> Iterator[dict[str, Tensor]]:
    """Split codes into batches of equal size."""
    for first in range(0, len(next(iter(codes.values()))), size):
        yield {name: found[first : first + size] for name, found in codes.items()}


if __name__ == "__main__":
    main()
