"""The pPCA of thumbnails: its closed form, its likelihood, and its way through the contract of models."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import vqcodec
from conftest import draw
from sklearn.decomposition import PCA
from vqcodec import media, training, weights
from vqcodec.bitstream.container import LEARNED
from vqcodec.metrics.image import psnr
from vqcodec.models import MODELS, build
from vqcodec.models.thumbnail import Config, ThumbnailPPCA
from vqcodec.placeholders import layout, tables
from vqcodec.placeholders.encoding import Searcher
from vqcodec.priors import factorised
from vqcodec.priors.gaussian_tables import SCALE_LEVELS
from vqcodec.training import validation
from vqcodec.transform.pixels import to_samples


def crops(number: int) -> torch.Tensor:
    return to_samples(np.stack([draw(64, 64, 16 * number + n) for n in range(16)]))


@pytest.fixture(scope="module")
def model() -> ThumbnailPPCA:
    """A model of 12 components, fitted to 640 thumbnails."""
    made = build(Config(components=12, thumbnails=640))
    assert isinstance(made, ThumbnailPPCA)
    made.start(crops, torch.Generator().manual_seed(0))
    return made


def fitted_to(model: ThumbnailPPCA) -> np.ndarray:
    """Coefficients of the thumbnails that `start` drew."""
    source = np.random.default_rng(
        int(torch.randint(1 << 31, (1,), generator=torch.Generator().manual_seed(0)))
    )
    return np.concatenate([layout.analyse(t) for t in model._thumbnails(crops, source)])


def test_the_fit_is_that_of_scikit_learn(model: ThumbnailPPCA) -> None:
    found = fitted_to(model)
    assert len(found) == 640
    theirs = PCA(12, svd_solver="full").fit(found)
    orthonormal = np.linalg.qr(model.components.numpy().T)[0]
    cosines = np.linalg.svd(theirs.components_ @ orthonormal)[1]
    assert cosines.min() > 0.9995
    deviations = model.deviation.detach().numpy()
    assert np.allclose(deviations**2 * 640 / 639, theirs.explained_variance_, rtol=1e-3)
    assert np.isclose(float(model.noise) * 640 / 639, theirs.noise_variance_, rtol=1e-3)
    assert (np.abs(model.mean.numpy() - theirs.mean_) * layout.units()).max() < 0.51


def test_the_loss_is_the_likelihood(model: ThumbnailPPCA) -> None:
    """Of the normal distribution with this covariance, by its determinant."""
    samples = to_samples(np.stack([draw(32, 32, n) for n in range(5)]))
    loss = float(model.loss(samples).loss.detach())
    components, spread = model.components.double(), model.deviation.detach().double() ** 2
    orthonormal = torch.linalg.qr(components.t()).Q
    inner = orthonormal.t() @ components.t()
    covariance = float(model.noise) * (torch.eye(layout.SIZE) - orthonormal @ orthonormal.t())
    covariance = covariance + (orthonormal @ inner) @ torch.diag(spread) @ (orthonormal @ inner).t()
    vectors = layout.analyse(np.stack([draw(32, 32, n) for n in range(5)]))
    centred = torch.from_numpy(vectors) - model.mean.double()
    distance = (centred @ torch.linalg.inv(covariance) * centred).sum(1)
    nats = 0.5 * (layout.SIZE * np.log(2 * np.pi) + torch.linalg.slogdet(covariance)[1] + distance)
    assert np.isclose(loss, float(nats.mean()), rtol=2e-3)


def test_the_closed_form_is_the_minimum_of_the_loss(model: ThumbnailPPCA) -> None:
    """Over the data that it was fitted to, any other deviation is less likely."""
    found = torch.from_numpy(fitted_to(model)).float()
    pixels = (found @ model._patterns).view(-1, 3, 32, 32) / 127.5
    best = float(model.loss(pixels).loss.detach())
    for factor in (0.9, 1.1):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.deviation.mul_(factor)
        assert float(other.loss(pixels).loss.detach()) > best


def test_analysis_inverts_synthesis(model: ThumbnailPPCA) -> None:
    latents = torch.randn(2, 3, 4, 12, generator=torch.Generator().manual_seed(0)) * 50
    samples = model.synthesis(latents)
    assert samples.shape == (2, 3, 96, 128)
    assert torch.allclose(model.analysis(samples), latents, atol=0.05)


def test_its_integers_code_placeholders(model: ThumbnailPPCA) -> None:
    arrays = {f"{tables.PREFIX}{n}": b.numpy() for n, b in model.placeholder.named_buffers()}
    searcher = Searcher(tables.Tables.of(arrays))
    assert len(searcher.encode(draw(32, 32, 3), 0, 20)) * 6 // 8 <= 20


def test_factorised_scales_follow_step_and_deviation() -> None:
    """A table wider by 3/16 octaves for each 3/16 octaves of deviation over step."""
    prior = factorised.FactorisedPrior(np.array([-400, 160, 256, 4000], np.int16), "z")
    symbols = {"z": np.zeros((2, 3, 4), np.int16)}
    scan = prior.scan([symbols], 100)
    [step] = scan.steps
    [gaussian] = scan.models(step)
    step_log2 = factorised.log2_step(100)
    assert gaussian.scale_indexes.shape == (6, 4)
    low, one, two, high = gaussian.scale_indexes[0].tolist()
    assert (low, high) == (0, SCALE_LEVELS - 1) and two - one == 32
    assert abs(-53 + 3 * one - (160 - step_log2)) <= 1
    assert [factorised.log2_step(n) for n in (0, 36, 72)] == [176, 160, 144]


def test_a_run_from_the_command_to_the_bitstream(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "plot_losses", lambda folder, headline: None)
    run = training.train(
        [photos],
        model="ppca-thumbnail",
        output=tmp_path / "run",
        batch=4,
        crop=64,
        overrides={"components": "8", "thumbnails": "500"},
    )
    assert run.card.config == {"components": 8} and run.card.parameters == 8 * layout.SIZE
    assert [point["quality"] for point in run.card.points] == [1, 2, 3, 4, 5]
    loaded = weights.load(run.best, "cpu")
    assert set(loaded.priors) == {LEARNED}
    assert tables.Tables.of(weights.read_tensors(run.best)).basis.shape == (8, layout.SIZE)
    pixels = draw(100, 70, 2)
    sizes, qualities = [], []
    for quality in (1, 3, 5):
        data = vqcodec.encode(pixels, model=run.best, quality=quality)
        decoded = vqcodec.decode(data, model=run.best)
        assert isinstance(decoded, media.Image) and decoded.samples.shape == pixels.shape
        sizes.append(len(data))
        qualities.append(psnr(pixels, decoded.samples))
    assert sizes == sorted(sizes) and qualities == sorted(qualities)
    assert MODELS["ppca-thumbnail"].training.steps == 1
