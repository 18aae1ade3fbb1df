from pathlib import Path

import pytest
from cli_fakes import install, invoke, records
from vqcodec.cli.train import short
from vqcodec.errors import TrainingError


@pytest.fixture
def fakes(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    return install(monkeypatch)


def test_options_reach_the_api(fakes):
    result = invoke(
        *("train", "photos", "-m", "vqvae-image", "--from", "fake-image", "--time-budget", "1h30m"),
        *("--stage", "codec", "--plane", "top"),
        *("-o", "runs/mine", "--steps", "20", "--batch", "4", "--lr", "1e-4", "--crop", "64", "--seed", "7"),
        *("--binarise", "dynamic"),
        *("--set", "codes=1024", "--set", "warmup = 5", "--config", "c.json", "--validation", "0.1"),
        *("--checkpoint-every", "10", "--keep-checkpoints", "2", "--note", "mine", "--device", "cpu"),
        *("--jobs", "1", "--no-progress"),
    )
    assert result.exit_code == 0, result.stderr
    assert fakes.named("train") == [
        {
            "data": ["photos"],
            "model": "vqvae-image",
            "stage": "codec",
            "plane": "top",
            "start": "fake-image",
            "time_budget": 5400.0,
            "output": "runs/mine",
            "resume": None,
            "steps": 20,
            "batch": 4,
            "learning_rate": 1e-4,
            "crop": 64,
            "binarise": "dynamic",
            "seed": 7,
            "overrides": {"codes": "1024", "warmup": "5"},
            "config": "c.json",
            "validation": "0.1",
            "checkpoint_every": 10,
            "keep_checkpoints": 2,
            "note": "mine",
            "dry_run": False,
            "tensorboard": False,
            "device": "cpu",
        }
    ]


def test_it_says_how_it_goes_and_what_to_do_next(fakes):
    result = invoke("train", "photos", "--model", "vqvae-image")
    assert result.stdout == ""
    assert "step 100  loss 0.01235  psnr 27.1\n" in result.stderr
    assert "skipped 1: a.png" in result.stderr
    assert "use it: vqcodec encode -m runs/fake-image-1/best.st FILES" in result.stderr


def test_segments_are_so_many_seconds_long(fakes):
    result = invoke("train", "photos", "-m", "vqvae-audio", "--crop", "0.64")
    assert fakes.named("train")[0]["crop"] == 0.64
    assert "step 100  loss 0.01235  log mel 0.41\n" in result.stderr
    # A whole number stays one: pictures are measured in pixels.
    invoke("train", "photos", "-m", "vqvae-image", "--crop", "64")
    assert repr(fakes.named("train")[1]["crop"]) == "64"
    assert invoke("train", "photos", "-m", "vqvae-audio", "--crop", "long").exit_code == 2


def test_what_fits_beside_the_bar():
    event = {"event": "step", "step": 7, "loss": 0.5, "mel": 0.3, "codes_used": 12, "learning_rate": 0.1}
    assert short(event | {"log_mel": 0.4}) == "step 7  loss 0.5  log mel 0.4  codes used 12"
    assert short(event | {"psnr_db": 27.5}) == "step 7  loss 0.5  psnr 27.5  codes used 12"


def test_json(fakes):
    found = records(invoke("train", "photos", "-m", "vqvae-image", "--json"))
    assert [record["type"] for record in found] == ["event", "event", "done"]
    assert found[1]["loss"] == 0.01234567
    assert found[2]["best"] == "runs/fake-image-1/best.st"


def test_resume_needs_no_data_and_takes_nothing_else(fakes):
    assert invoke("train", "--resume", "runs/mine").exit_code == 0
    (call,) = fakes.named("train")
    assert (call["resume"], call["data"], call["model"]) == ("runs/mine", [], None)
    result = invoke("train", "photos", "--resume", "runs/mine", "-m", "x")
    assert result.exit_code == 2
    assert "without FOLDER, -m" in result.stderr


def test_dry_run_promises_no_file(fakes):
    result = invoke("train", "photos", "-m", "vqvae-image", "--dry-run")
    assert fakes.named("train")[0]["dry_run"] is True
    assert "use it" not in result.stderr


def test_interrupted_training_says_how_to_resume(fakes):
    fakes.raises["interrupt"] = True
    result = invoke("train", "photos", "-m", "vqvae-image")
    assert result.exit_code == 130
    assert "resume: vqcodec train --resume runs/fake-image-1\n" in result.stderr


def test_stopped_training(fakes):
    fakes.raises["nan"] = TrainingError("the loss is not a number at step 3", "a lower --lr")
    result = invoke("train", "photos", "-m", "vqvae-image")
    assert result.exit_code == 1
    assert "vqcodec: the loss is not a number at step 3\n  hint: a lower --lr" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos"], "no model named"),
        (["photos"], "-m: vqvae-image, "),
        (["-m", "vqvae-image"], "nothing to train on"),
        (["gone", "-m", "vqvae-image"], "gone: no such file or folder"),
        (["photos", "-m", "vqvae-image", "--set", "codes"], "not KEY=VALUE"),
        (["photos", "-m", "vqvae-image", "--time-budget", "20"], "'20' is not a duration"),
        (["photos", "-m", "vqvae-image", "--steps", "0"], "--steps"),
    ],
)
def test_contradictions_attempt_nothing(fakes, arguments, message):
    result = invoke("train", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert fakes.calls == []


def test_a_run_that_is_no_better_does_not_say_use_it(fakes):
    fakes.raises["worse"] = True
    told = invoke("train", ".", "-m", "fake-image", "--tensorboard").stderr
    assert "use it" not in told
    assert "warning: no step was better than the start, which is what runs/fake-image-1/best.st holds" in told
    assert fakes.named("train")[0]["tensorboard"] is True
    assert records(invoke("train", ".", "-m", "fake-image", "--json"))[-1]["improved"] is False


def test_one_of_several_processes_prints(fakes, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    result = invoke("train", ".", "-m", "fake-image", "--json")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
