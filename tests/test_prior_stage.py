"""The second stage of a training: a learned prior, in the tool."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL, SMALL_SOUND, TINY, draw, sing
from vqcodec import media, pipeline, training, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.container import LEARNED, RAW, STATIC
from vqcodec.coding import chunks, driver
from vqcodec.errors import ModelError, UsageError
from vqcodec.models.base import Model
from vqcodec.models.vqvae import ImageVQVAE
from vqcodec.pipeline import sampling
from vqcodec.priors.learned import LearnedPrior


def test_the_codec_stays_what_it_was(with_prior: training.Run, small: str) -> None:
    """Only the prior is new: old files are read, and the networks are the same."""
    before, after = weights.load(small, "cpu"), weights.load(with_prior.best, "cpu")
    assert after.card.fingerprint == before.card.fingerprint
    assert after.card.name == before.card.name and LEARNED not in before.priors
    told = after.card.learned
    assert told["method"] == "pixelcnn" and told["config"]["width"] == 8
    assert told["training"]["chain"] == [
        "vqcodec train $DATA/photos0 --stage prior --from best.safetensors --steps 40 --batch 4 --lr 0.01 "
        "--crop 64 --checkpoint-every 20 --set embedding=4 --set width=8 --set hidden=4 --set blocks=1"
    ]
    old = pipeline.encode(draw(60, 40), model=small)
    assert np.array_equal(
        pipeline.decode(old, model=with_prior.best).samples, pipeline.decode(old, model=small).samples
    )


def test_a_model_in_memory_is_not_written_to(photos: Path, with_prior: training.Run, tmp_path: Path) -> None:
    """Loaded models are shared: a training from one leaves its priors, card and weights as they were."""
    shared = weights.load(with_prior.best, "cpu")
    card, priors = shared.card, dict(shared.priors)
    before = {name: tensor.clone() for name, tensor in shared.state_dict().items()}
    options: dict[str, Any] = {"start": with_prior.best, "steps": 1, "batch": 2, "crop": 32}
    training.train(photos, stage="prior", output=tmp_path / "prior", **options)
    training.train(photos, stage="codec", model="vqvae-image", output=tmp_path / "codec", **options)
    assert weights.load(with_prior.best, "cpu") is shared and shared.card is card
    assert shared.priors.keys() == priors.keys()
    assert all(shared.priors[number] is prior for number, prior in priors.items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in shared.state_dict().items())
    assert not any(tensor.requires_grad for tensor in shared.parameters())


def test_a_run_tells_the_method_of_its_prior(with_prior: training.Run, tmp_path: Path) -> None:
    """Settings of two methods may have the same names."""
    config = json.loads((with_prior.folder / "config.json").read_text())
    assert config["method"] == "pixelcnn"
    shutil.copytree(with_prior.folder, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text(json.dumps(config | {"method": "oracle"}))
    with pytest.raises(UsageError, match="describes no prior"):
        training.train(resume=tmp_path / "run", steps=50)
    old = {name: value for name, value in config.items() if name != "method"}
    (tmp_path / "run" / "config.json").write_text(json.dumps(old))
    run = training.train(resume=tmp_path / "run", steps=config["settings"]["steps"] + 2)
    assert run.card.learned is not None and run.card.learned["method"] == "pixelcnn"


def test_crops_of_a_prior_are_multiples_of_the_stride_of_its_codec(
    photos: Path, with_prior: training.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ImageVQVAE, "stride", 16)
    with pytest.raises(UsageError, match="crop is 40"):
        training.train(photos, stage="prior", start=with_prior.best, output=tmp_path / "x", steps=1, crop=40)


def test_training_lowers_the_bits(with_prior: training.Run) -> None:
    events = [json.loads(line) for line in (with_prior.folder / "metrics.jsonl").read_text().splitlines()]
    bits = [event["bits"] for event in events if event["event"] == "validation"]
    assert bits[-1] < bits[0] - 0.1
    measured = weights.read_card(with_prior.best).learned["measured"]["validation"]
    assert 0 < measured["bits"] <= measured["static_bits"]
    assert 1 < measured["payload_over_ideal"] < 1.2
    assert sorted(path.name for path in (with_prior.folder / "samples").iterdir())[0].startswith("step-")


def test_the_smallest_of_three_is_taken(with_prior: training.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    codec = weights.load(with_prior.best, "cpu")
    encoded = pipeline.encode_file(draw(300, 200, 3), pipeline.EncodeOptions(model=with_prior.best))
    fast = pipeline.encode_file(draw(300, 200, 3), pipeline.EncodeOptions(model=with_prior.best, fast=True))
    assert set(pipeline.info(encoded.data).priors) <= {STATIC, LEARNED}
    assert set(pipeline.info(fast.data).priors) == {STATIC}
    assert len(encoded.data) <= len(fast.data)
    assert np.array_equal(encoded.symbols["codes"], fast.symbols["codes"])
    for data in (encoded.data, fast.data):
        assert np.array_equal(codes_of(container.parse(data), codec), encoded.symbols["codes"])
    assert encoded.estimate_bits < 8 * pipeline.info(encoded.data).code_bytes
    noise = np.random.default_rng(0).integers(0, 64, (25, 25)).astype(np.int32)
    written = chunks.encode({"codes": noise}, codec.at(0), media_geometry(25)).chunks[0]
    assert written.prior == RAW


def codes_of(stream: container.Bitstream, codec: Model) -> np.ndarray:
    return chunks.decode(stream, codec.at(0)).symbols["codes"]


def media_geometry(side: int) -> container.ImageGeometry:
    return container.ImageGeometry(4 * side, 4 * side, 3, 4)


def learned_file(codec: Model) -> tuple[bytes, np.ndarray]:
    """A bitstream all of whose chunks are coded by the learned prior, and its codes."""
    drawn = sampling.sample(codec, size=(560, 100), seed=1)
    codes = np.random.default_rng(1).integers(0, 8, (25, 140)).astype(np.int32)
    geometry = container.ImageGeometry(560, 100, 3, 4)
    parts = [{"codes": np.ascontiguousarray(codes[region.part(4)])} for region in geometry.regions]
    prior = codec.priors[LEARNED]
    coded = [
        container.Chunk(LEARNED, prior.prior_id + region.payload) for region in driver.encode(prior, parts, 0)
    ]
    stream = container.Bitstream("small", bytes.fromhex(codec.card.fingerprint), geometry, [*coded])
    assert len(drawn) == 1 and len(coded) == 2
    return container.pack(stream), codes


def test_chunks_of_another_prior_are_refused(with_prior: training.Run, small: str) -> None:
    codec = weights.load(with_prior.best, "cpu")
    data, codes = learned_file(codec)
    assert np.array_equal(codes_of(container.parse(data), codec), codes)
    with pytest.raises(ModelError, match="prior that small does not have"):
        codes_of(container.parse(data), weights.load(small, "cpu"))
    stream = container.parse(data)
    other = [container.Chunk(LEARNED, b"ab" + c.payload[2:]) for c in stream.chunks if c is not None]
    wrong = container.Bitstream(stream.model, stream.fingerprint, stream.geometry, [*other])
    with pytest.raises(ModelError, match="chunk 1 needs the prior 6162"):
        codes_of(wrong, codec)


def test_every_flipped_bit_is_noticed_and_confined(with_prior: training.Run) -> None:
    """At every byte; where it lies in a chunk, the other chunk is decoded."""
    codec = weights.load(with_prior.best, "cpu")
    data, codes = learned_file(codec)
    header = container.read_info(data).header_bytes
    sizes = [len(chunk.payload) for chunk in container.parse(data).chunks if chunk is not None]
    places = [region.part(4) for region in container.parse(data).geometry.regions]
    for at in range(len(data)):
        broken = bytearray(data)
        broken[at] ^= 1 << at % 8
        with pytest.raises(container.DamagedError if at >= header else Exception):
            container.parse(bytes(broken))
        if at >= header and at % 7 == 0:
            stream = container.parse(bytes(broken), salvage=True)
            decoded = chunks.decode(stream, codec.at(0), salvage=True)
            found = decoded.symbols["codes"]
            assert any("damaged in chunk" in message for message in (*stream.damage, *decoded.damage))
            hit = 0 if at < header + sizes[0] else 1
            assert np.array_equal(found[places[1 - hit]], codes[places[1 - hit]])


def test_sounds(sound_prior: training.Run) -> None:
    codec = weights.load(sound_prior.best, "cpu")
    assert codec.card.learned["method"] == "wavenet"
    sound = media.Audio.of(sing(9.0, channels=2), 16_000)
    encoded = pipeline.encode_file(sound, pipeline.EncodeOptions(model=sound_prior.best))
    assert np.array_equal(codes_of(container.parse(encoded.data), codec), encoded.symbols["codes"])


class Interrupted(Exception):
    """What the report of a test raises."""


def stopping(event: str, nth: int) -> Any:
    """A report that raises when such an event comes for the n-th time."""
    count = 0

    def report(told: dict[str, Any]) -> None:
        nonlocal count
        count += told["event"] == event
        if count == nth:
            raise Interrupted

    return report


def test_resuming_repeats_the_run(photos: Path, small: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"batch": 2, "crop": 32, "checkpoint_every": 2, "steps": 4, "overrides": TINY}
    whole = training.train(photos, stage="prior", start=small, output=tmp_path / "a", **options)
    with pytest.raises(Interrupted):
        training.train(
            photos,
            stage="prior",
            start=small,
            output=tmp_path / "b",
            report=stopping("validation", 3),
            **options,
        )
    rest = training.train(resume=tmp_path / "b")
    one, two = (weights.load(run.best, "cpu").priors[LEARNED] for run in (whole, rest))
    assert isinstance(one, LearnedPrior) and isinstance(two, LearnedPrior)
    assert one.fingerprint == two.fingerprint


@pytest.mark.parametrize("nth", [3, 4, 5, 6])
def test_both_stages_are_resumed(photos: Path, tmp_path: Path, nth: int) -> None:
    """Interrupted in the first stage, between the two, before the second's first checkpoint, behind it."""
    options: dict[str, Any] = {"steps": 2, "batch": 2, "crop": 32, "checkpoint_every": 1, "overrides": SMALL}
    with pytest.raises(Interrupted):
        training.train(
            photos,
            model="vqvae-image",
            output=tmp_path / "run",
            report=stopping("validation", nth),
            **options,
        )
    folder = tmp_path / "run"
    named = folder / "prior" if nth == 5 and (folder / "prior" / "checkpoints").is_dir() else folder
    run = training.train(resume=named)
    assert run.folder == folder and run.best == folder / "best.safetensors"
    told = weights.read_card(run.best).learned["training"]
    assert told["steps"] == 2 and told["chain"][0].startswith("vqcodec train $DATA/photos0 -m vqvae-image")
    assert LEARNED in weights.load(run.best, "cpu").priors


def test_a_resumed_codec_keeps_its_prior(photos: Path, with_prior: training.Run, tmp_path: Path) -> None:
    """As one that was not interrupted does; what the prior measured for other codes is gone."""
    options: dict[str, Any] = {"steps": 2, "batch": 2, "crop": 32, "checkpoint_every": 1}
    with pytest.raises(Interrupted):
        training.train(
            photos,
            model="vqvae-image",
            stage="codec",
            start=with_prior.best,
            output=tmp_path / "run",
            report=stopping("validation", 3),
            **options,
        )
    run = training.train(resume=tmp_path / "run")
    learned, before = (weights.load(one.best, "cpu").priors[LEARNED] for one in (run, with_prior))
    assert isinstance(learned, LearnedPrior) and isinstance(before, LearnedPrior)
    assert learned.fingerprint == before.fingerprint
    assert "measured" not in run.card.learned


def test_a_damaged_prior_is_noticed(with_prior: training.Run, tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    with safe_open(with_prior.best, framework="numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        card = file.metadata()["card"]
    for name, changed in (
        ("learned.logits.bias", tensors["learned.logits.bias"] ^ 1),
        ("learned.logits.bias", tensors["learned.logits.bias"][:-1]),
        ("learned.first.weight", tensors["learned.first.weight"].astype(np.float32)),
    ):
        path = tmp_path / "damaged.safetensors"
        save_file(tensors | {name: changed}, path, {"card": card})
        with pytest.raises(ModelError, match=r"damaged\.safetensors"):
            weights.load(path, "cpu")
    for wrong in ({"name": "../evil"}, {"learned": "x"}, {"learned": {"config": 1}}):
        save_file(tensors, path, {"card": json.dumps(json.loads(card) | wrong)})
        with pytest.raises(UsageError, match="not a safetensors file of vqcodec"):
            weights.read_card(path)
    told = json.loads(card)
    told["learned"]["config"]["width"] = "big"
    save_file(tensors, path, {"card": json.dumps(told)})
    with pytest.raises(UsageError, match="width is 'big'"):
        training.train("photos", stage="prior", start=path, output=tmp_path / "x")


def test_one_command_trains_both(photos: Path, tmp_path: Path) -> None:
    run = training.train(
        photos, model="vqvae-image", output=tmp_path / "mine", steps=2, batch=2, crop=32, overrides=SMALL
    )
    assert run.folder == tmp_path / "mine"
    assert (run.folder / "prior" / "best.safetensors").is_file()
    codec = weights.load(run.best, "cpu")
    assert LEARNED in codec.priors and codec.card.name == "mine"
    assert json.loads(run.best.with_suffix(".json").read_text()) == weights.read_json(run.best)
    encoded = pipeline.encode_file(draw(64, 64), pipeline.EncodeOptions(model=run.best))
    assert np.array_equal(codes_of(container.parse(encoded.data), codec), encoded.symbols["codes"])
    # From there: the codec goes on, and so does its prior.
    further = training.train(
        photos, model="vqvae-image", start=run.best, output=tmp_path / "on", steps=1, batch=2, crop=32
    )
    assert LEARNED in weights.load(further.best, "cpu").priors


def test_a_second_decoder_gets_no_prior(talks: Path, small_sound: str, tmp_path: Path) -> None:
    run = training.train(
        talks,
        model="vqvae-audio",
        start=small_sound,
        output=tmp_path / "frozen",
        steps=1,
        batch=2,
        crop=0.2,
        overrides={"frozen": "true"},
    )
    assert not (run.folder / "prior").exists()
    assert SMALL_SOUND["codes"] == "16"


def test_what_a_prior_needs(photos: Path, small: str, tmp_path: Path) -> None:
    for options in (
        {"stage": "prior"},
        {"stage": "prior", "start": small, "model": "vqvae-image"},
        {"stage": "priors", "start": small},
        {"stage": "prior", "start": small, "crop": 30},
        {"stage": "prior", "start": small, "overrides": {"width": "500"}},
        {"stage": "prior", "start": small, "overrides": {"decoder_width": "32"}},
        {"stage": "prior", "resume": small},
    ):
        with pytest.raises(UsageError):
            training.train(photos, output=tmp_path / "x", steps=1, **options)  # type: ignore[arg-type]
        assert not (tmp_path / "x").exists()


# drawing


def test_pictures_are_drawn(with_prior: training.Run) -> None:
    one, two = sampling.sample(with_prior.best, count=2, size=(70, 50), seed=5)
    assert one.samples.shape == (50, 70, 3)
    again = sampling.sample(with_prior.best, count=2, size=(70, 50), seed=5)
    assert np.array_equal(one.samples, again[0].samples) and np.array_equal(two.samples, again[1].samples)
    assert not np.array_equal(one.samples, two.samples)
    other = sampling.sample(with_prior.best, size=(70, 50), seed=6)[0]
    assert not np.array_equal(one.samples, other.samples)
    sheet = sampling.image_grid([one, two, other])
    assert sheet.samples.shape == (102, 142, 3)
    assert np.array_equal(sheet.samples[:50, 72:], two.samples)


def test_a_picture_is_completed(with_prior: training.Run) -> None:
    """The upper part keeps its codes; the lower one is drawn."""
    codec = weights.load(with_prior.best, "cpu")
    data = pipeline.encode(draw(96, 80), model=with_prior.best)
    codes = codes_of(container.parse(data), codec)
    completed = sampling.sample(with_prior.best, continued=data, fraction=0.5)[0]
    original = pipeline.decode(data, model=with_prior.best)
    reach = 4 * (10 - codec.at(0).halo)
    assert np.array_equal(completed.samples[:reach], original.samples[:reach])
    assert not np.array_equal(completed.samples[44:], original.samples[44:])
    whole = sampling.sample(with_prior.best, continued=data, fraction=1.0)[0]
    assert np.array_equal(whole.samples, original.samples) and codes.shape == (20, 24)


def test_sounds_are_drawn_and_completed(sound_prior: training.Run) -> None:
    drawn = sampling.sample(sound_prior.best, count=2, seconds=0.5)
    assert [sound.signal.shape for sound in drawn] == [(1, 8000)] * 2
    assert sampling.concatenate(drawn).signal.shape == (1, 24_000)
    data = pipeline.encode(media.Audio.of(sing(1.0, channels=2), 16_000), model=sound_prior.best)
    completed = sampling.sample(sound_prior.best, continued=data, fraction=0.5)[0]
    assert completed.signal.shape == (2, 16_000)


def test_what_cannot_be_drawn(with_prior: training.Run, small: str) -> None:
    for options in (
        {"model": small},
        {"model": with_prior.best, "seconds": 2.0},
        {"model": with_prior.best, "size": (0, 5)},
        {"model": with_prior.best, "size": (100_000, 100_000)},
        {"model": with_prior.best, "temperature": 0.0},
        {"model": with_prior.best, "top_k": 0},
        {"model": with_prior.best, "fraction": 1.5},
        {"model": with_prior.best, "seed": -1},
        {"model": with_prior.best, "seed": 2**64},
        {"model": with_prior.best, "continued": b"", "size": (8, 8)},
    ):
        with pytest.raises(UsageError):
            sampling.sample(**options)  # type: ignore[arg-type]
