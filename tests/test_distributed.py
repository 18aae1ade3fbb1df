"""Two processes that train as one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_runs import QUICK, go, metrics, one_thread
from vqcodec import training
from vqcodec.errors import UsageError
from vqcodec.models.base import LossStep
from vqcodec.training import distributed, trainer

__all__ = ["one_thread"]

SCRIPT = """
import json, math, sys, torch
from vqcodec import training
from vqcodec.training import distributed, trainer, validation
torch.set_num_threads(1)
trainer.LOG_EVERY, trainer.LOG_SECONDS = 1, math.inf
validation.plot_losses = lambda folder, headline: None
honest = trainer.Trainer.learn
def learn(self):
    honest(self)
    state = [tensor.double().sum().item() for tensor in self.average.state_dict().values()]
    open(f"{self.plan.folder}/state-{distributed.rank()}.json", "w").write(json.dumps(state))
trainer.Trainer.learn = learn
photos, folder, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
training.train([photos], model="vqvae-image", output=folder, stage="codec", device="cpu", **options)
training.train(resume=folder, steps=2 * options["steps"], device="cpu")
"""


def torchrun(script: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    result = subprocess.run(
        [*command, str(script), *arguments], capture_output=True, text=True, check=False, timeout=100
    )
    assert result.returncode == 0, result.stderr[-3000:]


def test_two_processes_have_the_losses_of_one(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same batch, over 50 steps, restarts of codes among them, and a resume by both."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    # Counts that forget quickly, so that codes die and are moved within so few steps.
    options = {"batch": 4, "crop": 32, "checkpoint_every": 25, "overrides": {**QUICK, "decay": "0.7"}}
    both = str(tmp_path / "both")
    torchrun(script, str(photos), both, json.dumps({**options, "steps": 25}))
    monkeypatch.setattr(trainer, "LOG_EVERY", 1)
    whole = go([photos], tmp_path / "one", device="cpu", **{**options, "steps": 25})
    training.train(resume=whole.folder, steps=50, device="cpu")
    ours, theirs = (metrics(Path(folder), "step") for folder in (both, whole.folder))
    assert [event["step"] for event in ours] == [event["step"] for event in theirs] == [*range(1, 51)]
    assert [event["loss"] for event in ours] == pytest.approx([e["loss"] for e in theirs], rel=1e-4)
    assert ours[-1]["restarted"] == theirs[-1]["restarted"] > 0
    states = [json.loads((Path(both) / f"state-{rank}.json").read_text()) for rank in (0, 1)]
    assert states[0] == states[1], "the averages are equal on all"
    ends = [metrics(Path(folder), "end")[-1] for folder in (both, whole.folder)]
    assert ends[0]["psnr_db"] == pytest.approx(ends[1]["psnr_db"], abs=1e-2)


def test_one_process_shares_nothing() -> None:
    batch = torch.rand(4, 3)
    step = LossStep(torch.tensor(1.0), {}, {}, {"latents": batch})
    assert distributed.part(batch) is not None and torch.equal(distributed.part(batch), batch)
    assert distributed.gathered(step) is step
    assert distributed.most(2, 3) == [2, 3] and distributed.led(lambda: "x") == "x"
    assert distributed.leads() and distributed.seed(7) == 7


def test_batches_must_divide(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "count", lambda: 3)
    with pytest.raises(UsageError, match="a batch of 4 for 3 processes"):
        distributed.check(4)
    distributed.check(6)
