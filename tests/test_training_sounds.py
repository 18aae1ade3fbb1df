"""Training of sound codecs: exact resume, the discriminator, the second decoder, what a run folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from training_runs import interrupt_at, one_thread, same_tensors
from vqcodec import media, pipeline, training, weights
from vqcodec.errors import TrainingError, UsageError
from vqcodec.models.vqvae import generation
from vqcodec.training import validation

__all__ = ["one_thread"]

TINY = {
    "encoder_width": "8",
    "encoder_blocks": "1",
    "decoder_width": "8",
    "decoder_hidden": "8",
    "decoder_blocks": "1",
    "codes": "16",
    "unquantised": "2",
}
STACK = {"residual": "4", "skip": "4", "head": "8", "layers": "4", "stacks": "1"}


def go(data: Any, output: Path, model: str = "vqvae-audio", **options: Any) -> training.Run:
    defaults: dict[str, Any] = {"steps": 4, "batch": 2, "crop": 0.2, "checkpoint_every": 2, "stage": "codec"}
    if "start" not in options:
        defaults["overrides"] = TINY
    return training.train(data, model=model, output=output, **(defaults | options))


def whole_and_resumed(data: Path, folder: Path, **options: Any) -> tuple[training.Run, Path]:
    """A run of some steps, and its last checkpoint: the same as of one interrupted after two, and resumed."""
    whole = go([data], folder / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        go([data], folder / "parts", report=interrupt_at("validation", 2), **options)
    parts = training.train(resume=folder / "parts")
    last = f"checkpoints/step-{options['steps']:09d}.safetensors"
    assert same_tensors(whole.folder / last, parts.folder / last)
    assert same_tensors(whole.best, parts.best)
    return whole, whole.folder / last


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [event for event in found if event["event"] == kind]


def test_a_run_ends_with_a_codec(talks: Path, tmp_path: Path) -> None:
    run = go([talks], tmp_path / "mine")
    assert run.card.name == "mine" and run.card.medium == "audio"
    measured = run.card.measured["validation"]
    assert {"kbps", "log_mel", "si_sdr_db", "codes_used", "perplexity", "files"} < set(measured)
    files = {path.name for path in (tmp_path / "mine").iterdir()}
    assert {"config.json", "metrics.jsonl", "checkpoints", "samples", "best.safetensors", "log.txt"} <= files
    shown = media.read_image(tmp_path / "mine/samples/step-000000004.png")
    assert shown.channels == 1 and len(np.unique(shown.samples)) > 10, "spectrograms"
    source = next(talks.glob("*.wav"))
    decoded = pipeline.decode(pipeline.encode(source, model=run.best), model=run.best)
    assert isinstance(decoded, media.Audio)
    assert decoded.samples.shape == soundfile.read(source, always_2d=True)[0].shape


def test_resume_is_exact_with_a_discriminator_too(talks: Path, tmp_path: Path) -> None:
    codec = go([talks], tmp_path / "codec")
    options: dict[str, Any] = {"steps": 6, "start": codec.best}
    options["overrides"] = {"frozen": "true", "adversarial": "1"}
    whole, last = whole_and_resumed(talks, tmp_path, **options)
    assert any(name.startswith("discriminator/") for name in load_file(last))
    assert not any(name.startswith("discriminator.") for name in load_file(whole.best))
    assert whole.card.parameters == codec.card.parameters
    before, after = load_file(codec.best), load_file(whole.best)
    assert torch.equal(before["quantizer.codebook"], after["quantizer.codebook"])
    assert torch.equal(before["encoder.0.weight"], after["encoder.0.weight"])
    assert not torch.equal(before["decoder.0.weight"], after["decoder.0.weight"])
    assert len(whole.card.training["chain"]) == 2


def test_what_a_discriminator_judged_last_is_kept(
    talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No distance measures what a discriminator teaches; without them the smallest one decides."""
    scores = iter([-1.0, -2.0, -3.0, -1.0, -2.0, -3.0])
    monkeypatch.setattr(validation.Reconstructions, "validate", lambda *_: (next(scores), {"log_mel": 1.0}))
    plain = go(talks, tmp_path / "plain", checkpoint_every=1, steps=2)
    assert plain.card.training["best_step"] == 0
    judged = go(
        talks,
        tmp_path / "judged",
        start=plain.best,
        overrides={"frozen": "true", "adversarial": "1"},
        checkpoint_every=1,
        steps=2,
    )
    assert judged.card.training["best_step"] == 2


def test_a_decoder_that_draws_has_no_discriminator(talks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="discriminator"):
        go(talks, tmp_path / "run", "vqvae-audio-wavenet", overrides={"adversarial": "1"})


def test_the_second_decoder_of_a_codec(talks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "BATCH", 2)
    codec = go([talks], tmp_path / "codec")
    options: dict[str, Any] = {"model": "vqvae-audio-wavenet", "steps": 2, "overrides": STACK}
    with pytest.raises(UsageError, match="needs the encoder"):
        go([talks], tmp_path / "alone", **options)
    assert not (tmp_path / "alone").exists()
    second = go([talks], tmp_path / "second", start=codec.best, **options)
    assert second.card.method == "VQ-VAE with WaveNet decoder"
    assert second.card.measured["validation"]["bits"] < 9
    assert events(second.folder, "validation")[-1]["bits"] < 9
    source = next(talks.glob("*.wav"))
    data = pipeline.encode(source, model=codec.best)
    first = pipeline.decode(data, model=codec.best)
    drawn = pipeline.decode(data, model=codec.best, decoder=second.best)
    again = pipeline.decode(data, model=codec.best, decoder=second.best)
    assert isinstance(first, media.Audio) and isinstance(drawn, media.Audio)
    assert isinstance(again, media.Audio)
    assert drawn.signal.shape == first.signal.shape
    assert np.array_equal(drawn.signal, again.signal)
    assert not np.array_equal(drawn.signal, first.signal)
    third = go([talks], tmp_path / "third", model="vqvae-audio-wavenet", steps=2, start=second.best)
    assert third.card.config == second.card.config, "it goes on as it was"
    other = go([talks], tmp_path / "other", seed=1)
    data = pipeline.encode(source, model=other.best)
    with pytest.raises(UsageError, match="does not decode the codes"):
        pipeline.decode(data, model=other.best, decoder=second.best)
    with pytest.raises(UsageError, match="has no decoder 'parrot'"):
        pipeline.decode(data, model=other.best, decoder="parrot")


def test_the_paper_can_be_trained(talks: Path, tmp_path: Path) -> None:
    overrides = {name: value for name, value in TINY.items() if name != "unquantised"} | STACK
    run = go([talks], tmp_path / "paper", model="vqvae-audio-paper", steps=1, overrides=overrides)
    assert run.card.config["frozen"] is False
    assert weights.load(run.best).config.codebook_update == "loss"


def test_crops_are_seconds(talks: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="crop is 128"):
        go([talks], tmp_path / "run", crop=128)
    with pytest.raises(UsageError, match="no setting 'linear_start'"):
        go([talks], tmp_path / "run", overrides={"linear_start": "true"})


def test_pictures_are_no_sounds(talks: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no readable audio"):
        go([photos], tmp_path / "run")
    with pytest.raises(TrainingError, match="no readable images"):
        training.train([talks], model="vqvae-image", output=tmp_path / "run", steps=1)
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_trains_the_same_networks(talks: Path, tmp_path: Path) -> None:
    """Other networks would need other optimisers than the checkpoint has; the checkpoint is not at fault."""
    run = go([talks], tmp_path / "run", steps=1)
    for setting in ({"frozen": "true"}, {"adversarial": "1"}):
        with pytest.raises(UsageError, match=f"cannot change {next(iter(setting))}") as caught:
            training.train(resume=run.folder, steps=2, overrides=setting)
        assert "--from" in caught.value.hint
    training.train(resume=run.folder, steps=2, overrides={"mel": "10"})


def test_a_codec_grows(talks: Path, tmp_path: Path) -> None:
    """What --from has can become larger, not smaller; its card tells both commands."""
    small = go([talks], tmp_path / "small", steps=1)
    grown = go([talks], tmp_path / "grown", steps=1, start=small.best, overrides={"decoder_width": "12"})
    assert grown.card.config == small.card.config | {"decoder_width": 12}
    assert len(grown.card.training["chain"]) == 2
    with pytest.raises(UsageError, match="decoder_width is 4, --from has 8"):
        go([talks], tmp_path / "no", start=small.best, overrides={"decoder_width": "4"})
