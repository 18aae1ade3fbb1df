"""Models with one latent vector per picture: the whole way from a set of pictures to figures and samples."""

from __future__ import annotations

import contextlib
import gzip
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training_runs import metrics, one_thread, same_tensors
from vqcodec import encode, evaluation, training, weights
from vqcodec.errors import CollapseWarning, MediaError, TrainingError, UsageError
from vqcodec.evaluation import latents
from vqcodec.media.picture_sets import read_set
from vqcodec.models import MODELS, LatentModel, build, ppca
from vqcodec.models.latent import beta_vae, vae
from vqcodec.pipeline.sampling import sample
from vqcodec.training import datasets
from vqcodec.training.validation.latents import Latents

__all__ = ["one_thread"]


def squares(count: int = 400, side: int = 8) -> np.ndarray:
    """Gray pictures of a bright square on black, uint8 [count, side, side]."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 20, (count, side, side), dtype=np.uint8)
    for picture, (y, x) in zip(pixels, rng.integers(0, side - 3, (count, 2)), strict=True):
        picture[y : y + 3, x : x + 3] = 230
    return pixels


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "squares.npy"
    np.save(path, squares())
    return path


def go(data: Path, output: Path, **options: Any) -> training.Run:
    small = {"side": "8", "hidden": "16", "units": "6"}
    defaults: dict[str, Any] = {"model": "vae-bits", "steps": 60, "batch": 16, "checkpoint_every": 200}
    defaults |= {"binarise": "dynamic"}
    options["overrides"] = small | options.pop("overrides", {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)  # of runs too short to learn anything
        return training.train([data], output=output, **(defaults | options))


# data


def idx(pixels: np.ndarray) -> bytes:
    return struct.pack(">HBB3I", 0, 8, 3, *pixels.shape) + pixels.tobytes()


def test_sets_of_pictures_are_read(tmp_path: Path) -> None:
    pixels = squares(5)
    np.save(tmp_path / "a.npy", pixels)
    np.savez_compressed(tmp_path / "b.npz", images=pixels, labels=np.arange(5))
    (tmp_path / "c-idx3-ubyte").write_bytes(idx(pixels))
    (tmp_path / "d.idx.gz").write_bytes(gzip.compress(idx(pixels)))
    np.save(tmp_path / "e.npy", np.stack([pixels] * 3, -1))
    for name in ("a.npy", "b.npz", "c-idx3-ubyte", "d.idx.gz", "e.npy"):
        found = datasets.load(datasets.entries([tmp_path / name]))
        assert np.array_equal(np.stack(found.arrays), np.stack([pixels] * 3, -1)), name
    np.save(tmp_path / "bits.npy", pixels > 99)
    found = datasets.load(datasets.entries([tmp_path / "bits.npy"]))
    assert np.array_equal(found.arrays[2][..., 0], 255 * (pixels[2] > 99).astype(np.uint8))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", b"no array", "no readable pictures"),
        ("cut-idx3-ubyte", idx(squares(3))[:-1], "191 bytes for 192 pixels"),
        (
            "labels-idx1-ubyte",
            struct.pack(">HBBI", 0, 8, 1, 2) + b"\1\2",
            r"but an array \[2",
        ),
        ("cut.idx.gz", gzip.compress(idx(squares(3)))[:-20], "no readable pictures"),
        ("empty.npz", b"", "no readable pictures"),
    ],
)
def test_what_is_no_set_of_pictures_is_refused(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        datasets.load(datasets.entries([tmp_path / name]))


def test_floats_and_several_arrays_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "float.npy", squares(3) / 255)
    np.savez(tmp_path / "two.npz", x_train=squares(3), x_test=squares(2))
    np.save(tmp_path / "other.npy", squares(3, 9))
    np.save(tmp_path / "one.npy", squares(1))
    for name, message in (("float.npy", "pixels are float64"), ("two.npz", "x_train, x_test: save one")):
        with pytest.raises(TrainingError, match=message):
            datasets.load(datasets.entries([tmp_path / name]))
    with pytest.raises(TrainingError, match="several sizes: 8x8x1, 9x9x1"):
        datasets.load(datasets.entries([tmp_path / "one.npy", tmp_path / "other.npy"]))
    with pytest.raises(TrainingError, match="1 picture is too few"):
        datasets.load_split(datasets.entries([tmp_path / "one.npy"]), 0.5, 0)


def test_pictures_are_held_out_not_files(data: Path) -> None:
    ours, held_out = datasets.load_split(datasets.entries([data]), 0.05, 3)
    assert (len(ours), len(held_out)) == (380, 20)
    together = np.sort(np.concatenate([ours.arrays, held_out.arrays])[..., 0].reshape(400, -1), 0)
    assert np.array_equal(together, np.sort(squares().reshape(400, -1), 0))


def test_pixels_become_bits_in_three_ways(data: Path) -> None:
    pictures = datasets.load(datasets.entries([data]))

    def batches(how: str) -> list[torch.Tensor]:
        return [datasets.binarised(pictures, how, 1).batch(n, seed=5, size=300, crop=8) for n in (0, 0, 1)]

    for how in ("static", "dynamic", "threshold"):
        first, again, other = batches(how)
        assert set(first.unique().tolist()) == {-1.0, 1.0}
        assert torch.equal(first, again) and not torch.equal(first, other)
        # The share of ones of dark and bright pixels is their level, or one of 0 and 1.
        plain = pictures.batch(0, seed=5, size=300, crop=8)
        if how == "threshold":
            assert torch.equal(first > 0, plain > 0)
        else:
            bright = first[plain > 0.5]
            assert abs((bright > 0).float().mean() - 230 / 255) < 0.01
    held_out = [datasets.binarised(pictures, "dynamic", 1, dynamic=False).pixels for _ in range(2)]
    assert np.array_equal(*held_out) and set(np.unique(held_out)) == {0, 255}


def test_other_pixels_need_a_way(data: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="pixels other than 0 and 1") as caught:
        go(data, tmp_path / "run", binarise=None)
    assert caught.value.hint == "--binarise static, dynamic or threshold"
    with pytest.raises(UsageError, match="this model is for pixels of 0 and 1"):
        go(photos, tmp_path / "run")
    with pytest.raises(UsageError, match="vae-thumbnail is not for pixels of 0 and 1"):
        go(data, tmp_path / "run", model="vae-thumbnail")
    with pytest.raises(UsageError, match="pictures are 8x8, the model's 12x12") as caught:
        go(data, tmp_path / "run", overrides={"side": "12"})
    assert caught.value.hint == "train with --set side=8"


# training


def test_it_trains_resumes_and_measures(data: Path, tmp_path: Path) -> None:
    go(data, tmp_path / "whole", steps=150, checkpoint_every=150, learning_rate=1e-2)
    whole = training.train(resume=tmp_path / "whole", steps=200)
    rows = metrics(whole.folder, "validation")
    assert rows[-1]["elbo"] > rows[0]["elbo"] + 3, "it learns"
    assert {"active", "rate", "distortion", "mutual_information"} <= set(rows[-1])
    model = weights.load(whole.best)
    assert isinstance(model, LatentModel) and not whole.codes_files
    found = whole.card.measured["validation"]
    assert np.isclose(found["elbo"], -(found["distortion"] + found["rate"]))
    assert np.isclose(sum(found["kl"]), found["rate"], rtol=1e-5)
    assert np.isclose(found["bits_per_dimension"], -found["elbo"] / (64 * np.log(2)))
    assert found["active"] > 0 and whole.card.training["steps"] == 200


def test_validation_scores_the_loss_that_is_trained() -> None:
    """Not the ELBO: with a large beta, weights that tell too much would stay the best."""
    config = beta_vae.Config(side=8, units=3, hidden=8, network="mlp", beta=50.0, kl_warmup=0.5)
    score, figures = Latents().validate(
        build(config).eval(), list(255 * np.stack([squares(20) > 99] * 3, -1).astype(np.uint8))
    )
    assert score == pytest.approx(-figures["distortion"] - 50 * figures["rate"])
    assert figures["elbo"] == pytest.approx(-figures["distortion"] - figures["rate"])


def test_another_size_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    for side in ("9", "4"):  # means of pixels of 0 and 1 are neither
        with pytest.raises(UsageError, match=f"pictures are 8x8, the model's {side}x{side}"):
            go(data, tmp_path / "run", overrides={"side": side})
    assert not (tmp_path / "run").exists()


def test_a_damaged_header_of_an_array_is_told(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", squares(3))
    whole = (tmp_path / "a.npy").read_bytes()
    for place in range(10, 128):
        (tmp_path / "a.npy").write_bytes(whole[:place] + b"(" + whole[place + 1 :])
        with contextlib.suppress(MediaError):
            read_set(tmp_path / "a.npy")


def test_a_collapsed_model_warns(data: Path, tmp_path: Path) -> None:
    with pytest.warns(CollapseWarning, match="collapsed: 6 of 6 units"):
        training.train(
            [data],
            model="vae-bits",
            output=tmp_path / "run",
            steps=1,
            binarise="static",
            overrides={"side": "8", "units": "6"},
        )
    assert metrics(tmp_path / "run", "validation")[0]["collapsed"] == "6 of 6 units"


def test_a_resumed_run_repeats_the_other(data: Path, tmp_path: Path) -> None:
    go(data, tmp_path / "whole", steps=8, checkpoint_every=4, keep_checkpoints=9)
    last = sorted((tmp_path / "whole" / "checkpoints").iterdir())[-1]
    kept = last.read_bytes()
    (tmp_path / "kept.safetensors").write_bytes(kept)
    last.unlink()
    with pytest.warns(CollapseWarning):
        training.train(resume=tmp_path / "whole")
    assert same_tensors(last, tmp_path / "kept.safetensors")


def test_it_samples_but_codes_no_files(data: Path, tmp_path: Path) -> None:
    run = go(data, tmp_path / "run", steps=2)
    first, again, other = (sample(run.best, count=3, seed=seed) for seed in (7, 7, 8))
    assert [image.samples.shape for image in first] == [(8, 8, 3)] * 3
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].samples, other[0].samples)
    with pytest.raises(UsageError, match="draws pictures of one size"):
        sample(run.best, size=(64, 64))
    with pytest.raises(UsageError, match="run codes no image files") as caught:
        encode(tmp_path / "run" / "samples" / "step-000000002.png", model=run.best)
    assert "vae-image" in caught.value.hint
    with pytest.raises(UsageError, match="codes no image files"):
        evaluation.evaluate(tmp_path / "run" / "samples", model=run.best)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vae-thumbnail", {"side": "8", "linear_start": "false", "network": "mlp"}),
        ("vae-bits", {"likelihood": "gaussian"}),
        ("beta-vae", {"kl_warmup": "0.5", "free_bits": "0.1", "decoder": "pixelcnn"}),
        ("delta-vae", {"units": "8", "decoder": "factorised", "steps": "4"}),
        ("delta-vae", {"form": "independent", "decoder": "local"}),
        ("vae-gan", {"features": "2"}),
    ],
)
def test_each_model_goes_the_whole_way(
    data: Path, photos: Path, tmp_path: Path, name: str, settings: dict[str, str]
) -> None:
    """Trained, interrupted and resumed, sampled, and its reconstructions seen."""
    binary = MODELS[name].config.likelihood == "bernoulli" and "likelihood" not in settings
    options = {"model": name, "steps": 2, "binarise": "static" if binary else None, "crop": 64}
    source = photos if name == "vae-thumbnail" else data
    go(source, tmp_path / "run", overrides=settings, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CollapseWarning)
        run = training.train(resume=tmp_path / "run", steps=4)
    assert run.card.training["steps"] == 4
    assert [image.samples.shape for image in sample(run.best, count=2)] == [(8, 8, 3)] * 2
    figures = run.card.measured["validation"]
    assert np.isfinite(figures["elbo"]) and len(figures["kl"]) == run.card.config["units"]
    assert ("auxiliary_rate" in figures) == (name == "delta-vae")
    assert ("noise_variance" in figures) != binary
    model = weights.load(run.best)
    trip = model.round_trip(torch.zeros(2, 3, 8, 8))
    assert trip.samples is not None and trip.samples.shape == (2, 3, 8, 8)
    assert float(trip.samples.abs().max()) <= 1


def test_a_linear_start_is_ppca(data: Path, tmp_path: Path) -> None:
    """Before the first step the ELBO of held-out pictures is the evidence of pPCA with as many units."""
    run = go(data, tmp_path / "run", steps=1, binarise=None, overrides={"likelihood": "gaussian"})
    ours, held_out = (
        torch.from_numpy(part.pixels.reshape(len(part), -1)).double() / 255
        for part in datasets.load_split(datasets.entries([data]), 0.05, 0)
    )
    evidence = float(ppca.fit(*ppca.moments([ours]), 6).log_likelihood(held_out).mean())
    assert metrics(run.folder, "validation")[0]["elbo"] == pytest.approx(evidence, abs=2)


def test_larger_pictures_are_shrunk_by_means() -> None:
    model = build(vae.THUMBNAIL)
    samples = torch.rand(1, 3, 96, 96) * 2 - 1
    x = model.pictures(samples)
    assert x.shape == (1, 3, 32, 32)
    assert torch.allclose(x[0, 0, 5, 7], (samples[0, 0, 15:18, 21:24].mean() + 1) / 2)
    wide = np.zeros((70, 200, 3), np.uint8)
    wide[3:67, 68:132] = 255
    (found,) = latents.pictures([wide], model)
    assert float(found.min()) == 1, "the middle square of a photo, its side a multiple of the model's"
