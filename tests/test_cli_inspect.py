"""`vqcodec inspect`, and the scores of sprites."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from cli_fakes import invoke
from test_latent_models import go, one_thread, squares
from vqcodec import media, pipeline, weights
from vqcodec.bitstream.quality import DEFAULT_QUALITY, index_of
from vqcodec.evaluation import disentanglement
from vqcodec.evaluation.disentanglement import FACTORS, draw_factors, render, scores
from vqcodec.training import validation
from vqcodec.training.inspection import Inspection

__all__ = ["one_thread"]


STRONG = {"variance": "1", "likelihood": "gaussian", "decoder": "local", "beta": "3", "network": "mlp"}
COLLAPSED = {"model": "beta-vae", "steps": 1, "binarise": None, "overrides": STRONG}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of pictures, and two models of it: one trained a little, one not at all."""
    path = tmp_path_factory.mktemp("inspect")
    np.save(path / "squares.npy", squares(300))
    quick = {"average": "0.9", "warmup": "5"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(validation, "plot_losses", lambda folder, headline: None)
        go(path / "squares.npy", path / "trained", steps=200, learning_rate=2e-2, overrides=quick)
        go(path / "squares.npy", path / "collapsed", **COLLAPSED)
    return path


def inspected(folder: Path, name: str, *more: str, exit_code: int = 0) -> dict[str, Any]:
    model, data = str(folder / name / "best.safetensors"), str(folder / "squares.npy")
    result = invoke("inspect", data, "-m", model, "--json", *more)
    assert result.exit_code == exit_code, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_it_shows_what_latents_carry(folder: Path) -> None:
    found = inspected(folder, "trained", "--binarise", "static", "--importance", "20", "--count", "150")
    assert found["files"] == found["pictures"] == found["mixture"] == 150 and not found["collapsed"]
    assert found["rate"] == pytest.approx(sum(found["kl"])) and len(found["kl"]) == found["units"] == 6
    assert found["elbo"] == pytest.approx(-found["rate"] - found["distortion"])
    assert found["elbo"] < found["importance"] < found["elbo"] + 5
    assert 0 < found["mutual_information"] < min(found["rate"], found["ln_mixture"])
    assert found["ln_mixture"] == pytest.approx(math.log(150))
    again = inspected(folder, "trained", "--binarise", "static", "--count", "150", "--seed", "0")
    assert again == {k: v for k, v in found.items() if k not in ("importance", "samples")}


def test_a_collapsed_model_is_called_so_with_two_cures(folder: Path) -> None:
    found = inspected(folder, "collapsed", "--fail-if-collapsed", exit_code=1)
    assert found["collapsed"] and found["active"] == 0
    assert found["noise_variance"] == pytest.approx(1) and found["implied_variance"] == pytest.approx(3)
    arguments = str(folder / "squares.npy"), "-m", str(folder / "collapsed" / "best.safetensors")
    result = invoke("inspect", *arguments)
    assert result.exit_code == 0
    last = result.stdout.splitlines()[-3:]
    assert last[0] == "collapsed: 6 of 6 units are not active. Train with one of:"
    assert "--set variance=0" in last[1] and "--set context_dropout=1" in last[2]
    assert "mutual information" in result.stdout and "of at most 5.70, ln 300" in result.stdout
    inspected(folder, "trained", "--binarise", "static", "--fail-if-collapsed")


def test_it_draws_units_and_ways_between_pictures(folder: Path, tmp_path: Path) -> None:
    units, way = tmp_path / "units.png", tmp_path / "way.png"
    drawn = "--traverse", str(units), "--interpolate", "3", "7", "-o", str(way)
    inspected(folder, "trained", "--binarise", "threshold", *drawn)
    with PIL.Image.open(units) as rows, PIL.Image.open(way) as row:
        assert rows.size == (9 * 10 - 2, 6 * 10 - 2) and row.size == (9 * 10 - 2, 8)
        left, right = (np.asarray(row)[:, x : x + 8] for x in (0, 80))
        rows_of_units = np.asarray(rows.convert("L"), np.float64)
    found = Inspection(
        folder / "trained" / "best.safetensors", [folder / "squares.npy"], binarise="threshold"
    )
    # Of two units, the one of the larger rate is above, and changes the picture more.
    changes = [np.abs(rows_of_units[y : y + 8, :8] - rows_of_units[y : y + 8, 80:]).mean() for y in (0, 50)]
    assert changes[0] > changes[1]
    swapped = found.interpolate(7, 3).samples
    assert np.array_equal(left, swapped[:, -8:]) and np.array_equal(right, swapped[:, :8])
    assert not np.array_equal(left, right)
    inspected(folder, "trained", "--binarise", "threshold", "--traverse", str(units), exit_code=1)
    inspected(folder, "trained", "--binarise", "threshold", "--traverse", str(units), "--force")


def test_alike_pictures_tell_nothing_of_active_units(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "same.npy", squares(1).repeat(3, 0))
    model = str(folder / "trained" / "best.safetensors")
    result = invoke("inspect", str(tmp_path / "same.npy"), "-m", model, "--binarise", "threshold")
    assert (result.exit_code, "collapsed" in result.stdout) == (0, False)
    assert "active units" in result.stdout and "0 of 6: all pictures are alike" in result.stdout


def test_pixels_of_0_and_1_are_not_made_to_fit(folder: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", squares(3).repeat(2, 1).repeat(2, 2))
    model = str(folder / "trained" / "best.safetensors")
    result = invoke("inspect", str(tmp_path / "large.npy"), "-m", model, "--binarise", "threshold")
    assert (result.exit_code, "pictures are 16x16, the model's 8x8" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "pixels other than 0 and 1"),
        (["--binarise", "static", "--interpolate", "0", "300"], "no picture 300"),
        (["--binarise", "static", "-o", "way.png"], "-o without --interpolate"),
        (["--binarise", "static", "--scores"], "sprites are gray and 32x32"),
        (["--binarise", "static", "--traverse", "units.jpg"], "units.jpg is not a .png file"),
        (
            ["--binarise", "static", "--traverse", "a.png", "--interpolate", "0", "1", "-o", "./a.png"],
            "--traverse and --interpolate both draw ./a.png",
        ),
    ],
)
def test_what_cannot_be_inspected_is_refused(folder: Path, options: list[str], message: str) -> None:
    model = str(folder / "trained" / "best.safetensors")
    result = invoke("inspect", str(folder / "squares.npy"), "-m", model, *options)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert len(result.stderr.splitlines()) == 2


def test_codebooks_and_channels(photos: Path) -> None:
    (plane,) = Inspection("vqvae-image", [photos], count=2).figures()["planes"]
    assert plane["codes"] == plane["codes_used"] + plane["dead_codes"] == 512
    assert plane["bits_per_code"] == pytest.approx(math.log2(plane["perplexity"]))
    (plane,) = Inspection("vae-image", [photos / "00.png"]).figures()["planes"]
    point = weights.load("vae-image").at(index_of(DEFAULT_QUALITY), effort=0)
    image = media.read_image(photos / "00.png")
    padded = np.pad(image.samples, ((0, -image.height % 16), (0, -image.width % 16), (0, 0)), mode="edge")
    encoded = pipeline.encode_at(media.Image(padded), point)
    assert plane["bpp"] == pytest.approx(encoded.estimate_bits / padded[..., 0].size, rel=0.01)
    assert sum(plane["bpp_by_channel"]) == pytest.approx(plane["bpp"])
    result = invoke("inspect", str(photos / "00.png"), "-m", "vqvae-image", "--importance", "5")
    assert (result.exit_code, "no single latent vector" in result.stderr) == (2, True)


# sprites


def test_sprites_are_what_their_factors_say() -> None:
    factors = draw_factors(500, np.random.default_rng(0))
    pixels = render(factors)
    assert set(np.unique(pixels)) == {0, 255}
    white = pixels > 0
    assert not white[:, [0, -1]].any() and not white[:, :, [0, -1]].any(), "none is cut off"
    columns = (white.sum(1) * np.arange(32)).sum(1) / white.sum((1, 2))
    assert np.corrcoef(columns, factors[:, 3])[0, 1] > 0.98
    area = white.sum((1, 2))
    assert all(
        np.corrcoef(area[factors[:, 0] == n], factors[factors[:, 0] == n, 1])[0, 1] > 0.95 for n in range(3)
    )
    turned = factors[:1].repeat(2, 0)
    turned[:, 0], turned[:, 2] = 0, (5, 15)  # a square after a quarter of a turn
    assert np.array_equal(*render(turned))


def test_scores_of_factors_are_the_ceiling_and_of_noise_the_floor() -> None:
    """The ceiling of MIG is below 1, since 20 bins do not tell 32 or 40 values."""
    quick = {"points": 3000, "votes": 200}
    best = scores(lambda factors: factors.astype(float), **quick)
    assert best.factor_vae == 1 and abs(best.mig - 0.895) < 0.02
    noise = np.random.default_rng(1)
    worst = scores(lambda factors: noise.normal(size=(len(factors), 10)), **quick)
    assert abs(worst.factor_vae - 1 / len(FACTORS)) < 0.1 and worst.mig < 0.02
    # Each factor in two units alike: votes are right, but there is no gap.
    twice = scores(lambda factors: factors.astype(float).repeat(2, 1), **quick)
    assert twice.factor_vae > 0.95 and twice.mig == pytest.approx(0, abs=1e-9)
    # Size and places in a unit each: votes for the other two factors are wrong.
    assert scores(lambda factors: factors[:, [1, 3, 4]].astype(float), **quick).factor_vae == 0.6
    assert scores(lambda factors: np.zeros((len(factors), 3)), **quick).factor_vae == 0
    assert render(draw_factors(1, noise)).shape[1] == disentanglement.SIDE
