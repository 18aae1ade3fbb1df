"""Check that decoded symbols do not depend on types, threads and batches, and time learned priors.

python benchmarks/priors.py --exact FOLDER_OR_TAR ... [--model M] [--quality Q] [--files 10]
python benchmarks/priors.py --speed KODAK_FOLDER [--peer]
"""

import argparse
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import torch
from speed import photo, rates
from vqcodec import media, pipeline, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import LEARNED, STATIC
from vqcodec.coding import chunks, driver
from vqcodec.errors import MediaError
from vqcodec.models.base import OperatingPoint
from vqcodec.priors.base import Symbols
from vqcodec.priors.gaussian_tables import LATENT_UNIT
from vqcodec.training import datasets

MEDIUM = {media.Image: "image", media.Audio: "audio"}


class Placeholder(Loader, MetaPathFinder):
    """Stub of packages that compressai imports for its data sets, built for another torch."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:  # noqa: D102
        absent = name.partition(".")[0] in {"torchvision", "torch_geometric"}
        return ModuleSpec(name, self, is_package=True) if absent else None

    def create_module(self, spec: ModuleSpec) -> Any:  # noqa: D102
        return MagicMock(__path__=[])

    def exec_module(self, module: object) -> None:  # noqa: D102
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("sources", type=Path, nargs="+", help="folders, tar files, images, audio")
    parser.add_argument("--exact", action="store_true", help="decode every file in every way")
    parser.add_argument("--speed", action="store_true", help="time an image of 6 megapixels on two threads")
    parser.add_argument(
        "--peer",
        action="store_true",
        help="compare with compressai's mbt2018-mean and mbt2018, random weights",
    )
    parser.add_argument("--part", default="", help="only files whose names start with this")
    parser.add_argument("--model", help="name or file; the default model if absent")
    parser.add_argument("--quality", type=float, help="with --exact; the default if absent")
    parser.add_argument("--files", type=int, help="with --exact: this many files, evenly spread")
    parser.add_argument("--runs", type=int, default=3, help="number of runs, whose median is printed")
    options = parser.parse_args()
    if options.exact:
        exact(options)
    if options.speed:
        speed(options)


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def exact(options: argparse.Namespace) -> None:
    entries = [e for e in datasets.entries(options.sources) if e.path.startswith(options.part)]
    if options.files:
        entries = entries[:: max(len(entries) // options.files, 1)][: options.files]
    wrong: Counter[str] = Counter()
    files = codes = 0
    for entry in entries:
        try:
            original = media.read(entry.read())
        except MediaError:
            continue
        if options.model and weights.load(options.model).medium != MEDIUM[type(original)]:
            continue
        chosen = pipeline.EncodeOptions(model=options.model, quality=options.quality)
        encoded = pipeline.encode_file(original, chosen)
        files, codes = files + 1, codes + encoded.count
        wrong.update(differences(encoded))
    print(f"{files} files, {codes:,} symbols, {platform.machine()}, torch {torch.__version__}.\n")
    print("| decoded with | differing symbols |\n|---|---:|")
    for name, count in wrong.items():
        print(f"| {name} | {count} |")


def differences(encoded: pipeline.Encoded) -> dict[str, int]:
    """Return the number of differing symbols of the learned prior's chunks, by way of decoding."""
    stream, point = container.parse(encoded.data), encoded.point
    prior = point.model.priors[LEARNED]
    coded = [
        ({p.name: encoded.symbols[p.name][region.part(p.stride)] for p in point.planes}, chunk.payload)
        for region, chunk in zip(stream.geometry.regions, stream.chunks, strict=True)
        if chunk is not None and chunk.prior == LEARNED
    ]
    regions = [region for region, _ in coded]
    before = len(prior.prior_id) + (chunks.CHECK_BYTES if len(point.planes) > 1 else 0)
    payloads = [payload[before:] for _, payload in coded]
    found = {}
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        typed = prior.with_dtype(dtype)
        for count in (1, 2):
            with threads(count):
                decoded = read(typed, payloads, regions, point.index)
                found[f"{name}, {count} threads"] = _differing(decoded, regions)
        alone = [read(typed, [p], [r], point.index)[0] for p, r in zip(payloads, regions, strict=True)]
        found[f"{name}, chunk by chunk"] = _differing(alone, regions)
    again = write(prior.with_dtype(torch.float64), regions, point)
    found["float64, encoding (bytes)"] = sum(a != b for a, b in zip(again, payloads, strict=True))
    return found


def read(prior: Any, payloads: list[bytes], regions: list[Symbols], index: int) -> list[Symbols]:
    """Decode regions from their payloads, in batches of the prior."""
    found = [{name: np.zeros_like(array) for name, array in region.items()} for region in regions]
    for batch in batches(prior, regions):
        some = [found[n] for n in batch]
        for symbols, valid in zip(
            some, driver.decode(prior, [payloads[n] for n in batch], some, index), strict=True
        ):
            if not valid:
                symbols.update({name: np.full_like(array, -1) for name, array in symbols.items()})
    return found


def write(prior: Any, regions: list[Symbols], point: OperatingPoint) -> list[bytes]:
    """Encode regions to payloads; latents are scaled to steps."""
    targets = [
        {p.name: r[p.name] if p.alphabet else np.float32(r[p.name] / LATENT_UNIT) for p in point.planes}
        for r in regions
    ]
    found = [b""] * len(regions)
    for batch in batches(prior, regions):
        for n, coded in zip(
            batch, driver.encode(prior, [targets[n] for n in batch], point.index), strict=True
        ):
            found[n] = coded.payload
    return found


def batches(prior: Any, regions: list[Symbols]) -> list[list[int]]:
    return prior.batches([next(iter(region.values())).shape for region in regions])


def _differing(found: list[Symbols], expected: list[Symbols]) -> int:
    pairs = zip(found, expected, strict=True)
    return sum(int((one[name] != array).sum()) for one, other in pairs for name, array in other.items())


def speed(options: argparse.Namespace) -> None:
    torch.set_num_threads(2)
    image = photo(options.sources[0], 3000, 2000).convert("RGB")
    original = media.read_image(np.asarray(image))
    megapixels = original.width * original.height / 1e6
    work: dict[str, Callable[[], object]] = {}
    bpp = {}
    model = weights.load(options.model or weights.DEFAULTS["image"], "cpu")
    for name, fast in (("", False),) if STATIC not in model.priors else (("", False), (" --fast", True)):
        settings = {"model": options.model, "fast": fast}
        data = pipeline.encode_file(original.samples, pipeline.EncodeOptions(**settings)).data
        bpp[name] = 8e-6 * len(data) / megapixels
        work[f"encode{name}"] = lambda s=settings: pipeline.encode_file(
            original.samples, pipeline.EncodeOptions(**s)
        )
        work[f"decode{name}"] = lambda d=data: pipeline.decode(d, model=options.model)
    found = rates(work, options.runs, megapixels)
    if options.peer:
        found |= peers(original.samples)
    print(f"{original.width} x {original.height} ({megapixels:.1f} MP), 2 threads,", end=" ")
    print(f"median of {options.runs} runs, {platform.machine()}, torch {torch.__version__}.")
    print(", ".join(f"{rate:.4f} bpp{name}" for name, rate in bpp.items()) + ".\n")
    print("| | MP/s |\n|---|---:|")
    for name, rate in found.items():
        print(f"| {name} | {rate:.3f} |")
    if options.peer:
        for way in ("encode", "decode"):
            times = [f"{found[way] / found[f'{name} {way}']:.1f} times as fast as {name}" for name in PEERS]
            print(f"\n{way}: {', '.join(times)}.", end="")
        print()


PEERS = {"mbt2018-mean": "MeanScaleHyperprior", "mbt2018": "JointAutoregressiveHierarchicalPriors"}
"""Models of Minnen 2018, without and with an autoregressive context, and their classes in compressai."""


def peers(samples: np.ndarray) -> dict[str, float]:
    """Time the models of PEERS in compressai (N = M = 192), with random weights, in one run."""
    sys.meta_path.append(Placeholder())
    from compressai import models

    height, width = (side // 64 * 64 for side in samples.shape[:2])
    x = torch.from_numpy(samples[:height, :width]).permute(2, 0, 1)[None].float() / 255
    megapixels = height * width / 1e6
    found = {}
    for name, kind in PEERS.items():
        torch.manual_seed(0)
        model = getattr(models, kind)(192, 192).eval()
        model.update()
        with torch.inference_mode():
            started = time.perf_counter()
            coded = model.compress(x)
            middle = time.perf_counter()
            model.decompress(coded["strings"], coded["shape"])
            ended = time.perf_counter()
        found[f"{name} encode"] = megapixels / (middle - started)
        found[f"{name} decode"] = megapixels / (ended - middle)
    return found


if __name__ == "__main__":
    main()
