"""VQ-VAE-2 goes the whole road: codec and both priors in one command, files, salvage, samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import vqcodec
from conftest import draw
from two_level_models import OPTIONS, run, small_priors
from vqcodec import media, pipeline, training, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import LEARNED, STATIC
from vqcodec.errors import UsageError
from vqcodec.models import MODELS, Entry
from vqcodec.pipeline import EncodeOptions
from vqcodec.priors import conditional
from vqcodec.priors.chain import ChainPrior

__all__ = ["run", "small_priors"]


def test_one_command_trains_three_networks(run: training.Run) -> None:
    model = weights.load(run.best)
    learned, static = model.priors[LEARNED], model.priors[STATIC]
    assert isinstance(learned, ChainPrior) and isinstance(static, ChainPrior)
    assert [type(link).__name__ for link in learned.links] == [
        "AttentivePixelCNNPrior",
        "ConditionalPixelCNNPrior",
    ]
    told = model.card.learned
    assert told is not None and [*told["planes"]] == ["top", "bottom"]
    assert told["planes"]["top"]["method"] == "attentive-pixelcnn"
    assert told["fingerprint"] == learned.fingerprint.hex() and len(learned.prior_id) == 2
    assert all(part["training"]["steps"] == 12 for part in told["planes"].values())
    assert len(told["planes"]["bottom"]["training"]["chain"]) == 1, "the same command"
    assert [point["quality"] for point in model.card.points] == [1, 3]
    assert model.card.points[0]["bpp"] < model.card.points[1]["bpp"]
    assert model.card.points[0]["psnr_db"] < model.card.points[1]["psnr_db"]
    measured = told["measured"]["validation"]
    assert 1 < measured["payload_over_ideal"] < 1.2 and measured["codes_used_top"] > 10


def test_training_lowers_the_bits(run: training.Run) -> None:
    for folder in (run.folder / "prior", run.folder / "prior" / "prior"):
        events = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        bits = [event["bits"] for event in events if event["event"] == "validation"]
        assert bits[-1] < bits[0]


@pytest.mark.parametrize(("stage", "step"), [(0, 12), (1, 0), (1, 12), (2, 0), (2, 12)])
def test_it_is_resumed_at_every_point(
    run: training.Run, photos: Path, tmp_path: Path, stage: int, step: int
) -> None:
    """Interrupted in each of the three stages, before and after its first checkpoint."""
    folders = []

    def interrupt(event: dict[str, Any]) -> None:
        if event["event"] == "start":
            folders.append(event["folder"])
        if event["event"] == "validation" and (len(folders) - 1, event["step"]) == (stage, step):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training.train([photos], output=tmp_path / "two", report=interrupt, **OPTIONS)
    again = training.train(resume=tmp_path / "two")
    assert again.best == tmp_path / "two" / "best.safetensors"
    expected, found = (weights.load(r.best, "cpu") for r in (run, again))
    assert found.card.fingerprint == expected.card.fingerprint
    tensors = expected.priors[LEARNED].to_tensors()
    for name, array in found.priors[LEARNED].to_tensors().items():
        assert np.array_equal(array, tensors[name]), name


def test_one_plane_alone(run: training.Run, photos: Path, tmp_path: Path) -> None:
    """Another prior of the bottom: the codec and the prior of the top stay."""
    options: dict[str, Any] = {"start": run.best, "steps": 1, "batch": 2, "crop": 32}
    new = {**options, "overrides": {"hidden": "6"}}
    found = training.train(photos, stage="prior", plane="bottom", output=tmp_path / "b", **new)
    old, after = (weights.load(path, "cpu").priors[LEARNED] for path in (run.best, found.best))
    assert isinstance(old, ChainPrior) and isinstance(after, ChainPrior)
    assert old.links[0].prior_id == after.links[0].prior_id
    assert old.links[1].prior_id != after.links[1].prior_id and old.prior_id != after.prior_id
    assert (
        "--plane bottom" in weights.read_card(found.best).learned["planes"]["bottom"]["training"]["chain"][-1]
    )  # type: ignore[index]
    with pytest.raises(UsageError, match="no plane 'middle'"):
        training.train(photos, stage="prior", plane="middle", output=tmp_path / "c", **options)
    with pytest.raises(UsageError, match="planes are those of priors"):
        training.train(photos, model="vqvae2-image", plane="top", output=tmp_path / "d")


def test_a_codec_trained_on_keeps_its_priors(run: training.Run, photos: Path, tmp_path: Path) -> None:
    """What they were trained on is other codes now; a training of the priors goes on from them."""
    one: dict[str, Any] = {"start": run.best, "steps": 1, "batch": 2, "crop": 32}
    bottom = training.train(photos, stage="prior", plane="bottom", output=tmp_path / "b", **one)
    start = weights.load(bottom.best, "cpu")
    found = training.train(
        photos,
        model="vqvae2-image",
        stage="codec",
        output=tmp_path / "c",
        **{**one, "start": bottom.best, "learning_rate": 1e-2},
    )
    after = weights.load(found.best, "cpu")
    old, new = start.priors[LEARNED], after.priors[LEARNED]
    assert isinstance(old, ChainPrior) and isinstance(new, ChainPrior) and old.prior_id == new.prior_id
    told = after.card.learned
    assert told is not None and [*told["planes"]] == ["top", "bottom"]
    assert not any("measured" in part for part in (told, *told["planes"].values()))
    pipeline.verify(pipeline.encode_file(draw(64, 48, 5), EncodeOptions(model=found.best)))
    # Planes without a learned link have the tables fitted to the new codes, not those of the start.
    chain = after.priors[STATIC]
    assert isinstance(chain, ChainPrior)
    mixed = after.equipped(priors={LEARNED: chain.with_link(new.links[1])})
    codes = [{"top": np.zeros((4, 4), np.int32), "bottom": np.zeros((8, 8), np.int32)}]
    again = mixed.fit_tables(codes, 0).priors
    learned, static = again[LEARNED], again[STATIC]
    assert isinstance(learned, ChainPrior) and isinstance(static, ChainPrior)
    assert learned.links == (static.links[0], new.links[1])


@pytest.mark.parametrize("size", [(96, 80), (97, 83), (1, 1), (600, 530)])
def test_it_encodes_and_decodes(run: training.Run, size: tuple[int, int]) -> None:
    image = draw(*size, 5)
    encoded = pipeline.encode_file(image, EncodeOptions(model=run.best))
    pipeline.verify(encoded)
    fast = pipeline.encode_file(image, EncodeOptions(model=run.best, fast=True))
    pipeline.verify(fast)
    assert set(pipeline.info(fast.data).priors) <= {container.RAW, STATIC, container.PIXELS}
    assert vqcodec.decode(encoded.data, model=run.best).samples.shape == image.shape
    alone = pipeline.encode_file(image, EncodeOptions(model=run.best, quality=1.0))
    pipeline.verify(alone)
    assert len(alone.data) <= len(encoded.data) <= len(fast.data)
    if min(size) > 500:
        assert 8 * pipeline.info(encoded.data).code_bytes < 1.01 * encoded.estimate_bits + 400


def test_a_preview_reads_the_top_only(run: training.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    image = draw(200, 152, 5)
    data = vqcodec.encode(image, model=run.best)
    small = vqcodec.decode(data, model=run.best, preview=True).samples
    assert small.shape == (19, 25, 3)
    assert np.abs(small - image.reshape(19, 8, 25, 8, 3).mean((1, 3))).mean() < 30

    def unread(*_: object) -> None:
        raise AssertionError("the bottom is read")

    monkeypatch.setattr(conditional.ConditionalPixelCNNPrior, "spread", unread)
    assert np.array_equal(vqcodec.decode(data, model=run.best, preview=True).samples, small)


def test_every_flipped_byte_is_detected(run: training.Run) -> None:
    data = vqcodec.encode(draw(40, 24, 5), model=run.best)
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 0x41
        with pytest.raises(vqcodec.VqcodecError):
            vqcodec.decode(bytes(broken), model=run.best)


def test_it_samples(run: training.Run) -> None:
    first, second = vqcodec.sample(run.best, count=2, size=(40, 24), seed=3)
    assert first.samples.shape == (24, 40, 3) and not np.array_equal(first.samples, second.samples)
    assert np.array_equal(vqcodec.sample(run.best, size=(40, 24), seed=3)[0].samples, first.samples)
    data = vqcodec.encode(draw(96, 80, 1), model=run.best)
    (rest,) = vqcodec.sample(run.best, continued=data, fraction=0.5)
    assert rest.samples.shape == (80, 96, 3)


def test_it_samples_by_level(run: training.Run) -> None:
    """A new bottom under the top of a file; temperature and top-k of one level."""
    image = draw(96, 80, 1)
    data = vqcodec.encode(image, model=run.best)
    first, second = vqcodec.sample(run.best, continued=data, resample="bottom", count=2)
    whole = vqcodec.sample(run.best, continued=data, resample="top")[0]
    decoded = vqcodec.decode(data, model=run.best).samples.astype(float)
    assert not np.array_equal(first.samples, second.samples)
    near, far = (np.square(one.samples - decoded).mean() for one in (first, whole))
    assert near < far
    options: dict[str, Any] = {"size": (40, 24), "temperature": {"bottom": 0.5}, "top_k": {"top": 1}}
    a, b = (vqcodec.sample(run.best, seed=seed, **options)[0].samples for seed in (1, 2))
    assert not np.array_equal(a, b)
    with pytest.raises(UsageError, match="no plane 'middle'"):
        vqcodec.sample(run.best, temperature={"middle": 1.0})
    with pytest.raises(UsageError, match="kept of a file"):
        vqcodec.sample(run.best, resample="bottom")


def test_the_named_settings() -> None:
    entry = MODELS["vqvae2-image"]
    assert isinstance(entry, Entry) and [*entry.model.prior_methods] == ["top", "bottom"]


def test_more_effort_brings_the_top_alone_nearer() -> None:
    image = media.Image(draw(96, 128, 3))
    errors, sizes = [], []
    for effort in (0, 1, 2, 3):
        data = pipeline.encode(image, model="vqvae2-image", quality=1, effort=effort)
        difference = pipeline.decode_image(data).samples.astype(int) - image.samples
        errors.append(float(np.square(difference).mean()))
        sizes.append(len(data))
    assert errors[0] == errors[1] > 1.02 * errors[2] and errors[3] <= errors[2]
    assert sizes[3] < 1.05 * sizes[0]


def test_more_effort_makes_both_levels_worth_more() -> None:
    """Error after decoding and bits of the file, by the rate that the weights were trained for."""
    image = media.Image(draw(96, 128, 3))
    worth = weights.load("vqvae2-image", "cpu").config.error_per_bit  # type: ignore[attr-defined]
    costs, tops = [], []
    for effort in (0, 1, 2, 3):
        options = EncodeOptions(model="vqvae2-image", quality=3.0, effort=effort)
        encoded = pipeline.encode_file(image, options)
        difference = pipeline.decode_image(encoded.data).samples.astype(float) - image.samples
        costs.append(np.square(difference / 127.5).sum() + worth * encoded.estimate_bits)
        tops.append(encoded.symbols["top"].tolist())
    assert costs[0] == costs[1] > 1.01 * costs[2] and costs[2] > costs[3]
    assert tops == tops[:1] * 4
