"""The one training loop: steps, validation, checkpoints, exact resume, the finished model.

Every random choice of step n is a function of the seed and n alone (`batch` of the data set, the generator
given to `update`), so a checkpoint needs no generator state, and a resumed run repeats the uninterrupted one
bit for bit on the same CPU and thread count. Two things follow the clock instead: the schedule of a time
budget, and where an interruption falls, which is one more place to look for the best weights.
"""

from __future__ import annotations

import copy
import json
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .. import weights
from ..errors import TrainingError
from ..files import atomically
from ..metrics.image import code_use
from . import checkpoints, datasets
from . import validation as finishing
from .capture import Captured
from .checkpoints import Clock
from .plan import Plan
from .settings import Settings, held_out_share

Report = Callable[[dict[str, Any]], None]
LOG_EVERY = 100
SLOW = 0.15
"""Learning rate of a model's `slow` parameters, over that of the others."""

VALIDATION_FILES = 64
"""Held-out files looked at during the run; the final figures are taken over all of them."""


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: everything the run wrote.
        best: the weights file that `encode(model=...)` takes.
        card: its model card.
    """

    folder: Path
    best: Path
    card: dict[str, Any]


class Trainer:
    """The state of a run and the loop over it."""

    def __init__(self, plan: Plan, device: str, tell: Report, *, fresh: bool = True) -> None:
        self.plan, self.settings, self.device, self.tell = plan, plan.settings, device, tell
        self.clock = Clock()
        self.model = plan.build()
        self.finishing = finishing.of(self.model)
        self.data, self.held_out = self._load_data()
        self.model.to(memory_format=torch.channels_last)
        start = None
        # A resumed run does without its start, if that is gone.
        if plan.start is not None and plan.stage != "prior" and (fresh or Path(plan.start).is_file()):
            start = weights.load(plan.start, "cpu")
        if fresh:
            if start is None:
                tell({"event": "preparing"})
                self.model.start(self._start_batch, self._generator(0))
            elif start is not None:
                codes = math.prod(side // self.model.stride for side in self._start_batch(0).shape[2:])
                self.model.begin_from(start, self.settings.batch * codes)
        if start is not None:
            self.model.carry(start)
        self.model.to(device)
        self.model.train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        critics = [] if self.model.critics is None else list(self.model.critics.parameters())
        named = {n: p for n, p in self.model.named_parameters() if p.requires_grad}
        named = {n: p for n, p in named.items() if not n.startswith("critics.")}
        self.parameters = list(named.values())
        slow = [p for n, p in named.items() if n.startswith(self.model.slow)]
        fast = [p for n, p in named.items() if not n.startswith(self.model.slow)]
        self.optimiser = self._optimiser_of(fast, slow)
        self.critics_optimiser = self._optimiser_of(critics) if critics else None
        self._loss = Captured(self.model, "loss")
        self._critics_loss = Captured(self.model, "critics_loss")
        self._batches = datasets.Ahead(partial(_batch, self.data, self.settings))
        self._histogram = torch.zeros(self.model.codes, dtype=torch.int64, device=device)
        self._sums: dict[str, float] = {}
        self._summed = 0
        self._stop = False

    def run(self) -> Run:
        """Train to the end, then finish the model."""
        self.learn()
        return self.finish()

    def learn(self) -> None:
        """Train to the end; the weights that did best, with critics the newest, are in the run folder."""
        folder = self.plan.folder
        for part in ("checkpoints", "samples"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        self.plan.write()
        self._say(
            event="start",
            folder=str(folder),
            files=len(self.data),
            validation=len(self.held_out),
            skipped=self.data.skipped + self.held_out.skipped,
            parameters=sum(p.numel() for p in self.model.parameters()),
        )
        with self._interruptible():
            if self.clock.step == 0:
                self._validate()
                if self._stop:
                    self._checkpoint()
            self._loop()
        if self._stop:
            raise KeyboardInterrupt

    def try_one_step(self) -> Run:
        """One step on one batch, with its time and memory in the report; nothing is written."""
        import resource

        self._step()
        started = time.perf_counter()
        terms = self._step()
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if self.device.startswith("cuda"):
            peak = torch.cuda.max_memory_allocated(self.device)
        self.tell({"event": "dry-run", "seconds_per_step": seconds, "peak_bytes": peak, **terms})
        return Run(self.plan.folder, self.plan.folder / "best.safetensors", {})

    def restore(self) -> None:
        """Continue where the newest checkpoint of the run folder left off."""
        path = checkpoints.newest(self.plan.folder / "checkpoints")
        self.clock = checkpoints.restore(path, self.model, self.average, self._optimisers)

    def _loop(self) -> None:
        began = time.monotonic() - self.clock.elapsed_seconds
        while self._progress() < 1 and not self._stop:
            terms = self._step()
            self.clock.elapsed_seconds = time.monotonic() - began
            if not math.isfinite(terms["loss"]):
                raise TrainingError(
                    f"the loss is not a number at step {self.clock.step}",
                    f"--from {self.plan.folder / 'best.safetensors'} with a lower --lr",
                )
            self._summed += 1
            for name, value in terms.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            if self.clock.step % LOG_EVERY == 0:
                self._log()
            if self.clock.step % self.settings.checkpoint_every == 0:
                self._validate()
                self._checkpoint()
        if self.clock.step % self.settings.checkpoint_every:
            self._validate()
            self._checkpoint()

    def _step(self) -> dict[str, float]:
        settings, clock = self.settings, self.clock
        samples = self._batches.batch(clock.step).to(self.device)
        progress = self._progress()
        rate = settings.learning_rate * self._schedule(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["pace"]
        self.optimiser.zero_grad(set_to_none=True)
        try:
            self._loss.prepare(samples)
            torch.manual_seed((settings.seed << 32) + clock.step)  # of the noise that a model may take
            terms = self._loss.run(samples)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise TrainingError(
                f"out of memory at batches of {settings.batch}", "--batch or --crop"
            ) from error
        torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimiser.step()
        terms |= self._teach_critics(rate)
        after = self.model.update(progress, self._generator(clock.step + 1))
        if "codes" in after:
            codes = after["codes"].flatten()
            self._histogram.index_add_(0, codes, torch.ones_like(codes))
            clock.restarted += after["restarted"]
        clock.step += 1
        self._follow(min(settings.average, (1 + clock.step) / (10 + clock.step)))
        return dict(zip(terms, torch.stack([*terms.values()]).tolist(), strict=True))

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Move the averages of what is trained; keep the rest as it is in the model."""
        pairs = [*zip(self.average.parameters(), self.model.parameters(), strict=True)]
        moving = [pair for pair in pairs if pair[1].requires_grad]
        means, currents = map(list, zip(*moving, strict=True))
        get_ema_multi_avg_fn(decay)(means, currents, None)  # type: ignore[no-untyped-call]
        pairs = [pair for pair in pairs if not pair[1].requires_grad]
        for kept, current in [*pairs, *zip(self.average.buffers(), self.model.buffers(), strict=True)]:
            kept.copy_(current)

    @property
    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        """By the names that checkpoints give them."""
        critics = self.critics_optimiser
        return {"optimiser": self.optimiser} | ({} if critics is None else {"critics": critics})

    def _teach_critics(self, rate: float) -> dict[str, Tensor]:
        """A step of the critics, which learn half as fast as what they judge; nothing without critics."""
        if self.critics_optimiser is None or self.model.critics is None:
            return {}
        for group in self.critics_optimiser.param_groups:
            group["lr"] = rate / 2
        self.critics_optimiser.zero_grad(set_to_none=True)
        self._critics_loss.prepare()
        loss = self._critics_loss.run()["loss"]
        torch.nn.utils.clip_grad_norm_(self.model.critics.parameters(), self.settings.clip)
        self.critics_optimiser.step()
        return {"critics": loss}

    def _optimiser_of(self, fast: Sequence[Tensor], slow: Sequence[Tensor] = ()) -> torch.optim.Optimizer:
        settings = self.settings
        groups = [{"params": fast, "pace": 1.0}, {"params": slow, "pace": SLOW}]
        return torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=settings.learning_rate,
            betas=(settings.beta1, settings.beta2),
            fused=self.device != "mps",
        )

    def _progress(self) -> float:
        if self.plan.seconds is not None:
            return self.clock.elapsed_seconds / self.plan.seconds
        return self.clock.step / self.settings.steps

    def _schedule(self, progress: float) -> float:
        rise = min(1.0, (self.clock.step + 1) / max(self.settings.warmup, 1))
        return rise * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.settings.seed << 32) + number)

    def _start_batch(self, number: int) -> Tensor:
        settings = self.settings
        number += datasets.START
        batch: Tensor = self.data.batch(number, seed=settings.seed, size=16, crop=settings.crop)
        return batch

    def _load_data(self) -> tuple[Any, Any]:
        settings, medium = self.settings, self.model.medium
        extra: dict[str, Any] = {"rate": self.model.rate} if medium == "audio" else {}
        files = datasets.entries([Path(p) for p in self.plan.data])
        share = held_out_share(settings.validation)
        if share is None:
            others = datasets.entries([Path(settings.validation)])
            held_out = datasets.load(others, medium, whole=True, **extra)
            return datasets.load(files, medium, seed=settings.seed, **extra), held_out
        if len(files) < 2:
            raise TrainingError(f"{len(files)} files are too few to train on", "give at least two")
        return datasets.load_split(files, share, settings.seed, medium, **extra)

    def _log(self) -> None:
        mean = {name: total / self._summed for name, total in self._sums.items()}
        self._say(
            event="step",
            step=self.clock.step,
            progress=min(self._progress(), 1.0),
            seconds=round(self.clock.elapsed_seconds, 1),
            **self.finishing.step_figures(mean),
            **self._code_figures(),
            learning_rate=self.optimiser.param_groups[0]["lr"],
            **mean,
        )
        self._sums, self._summed = {}, 0
        self._histogram.zero_()

    def _code_figures(self) -> dict[str, Any]:
        """Use of the codes since the last report, of a model that has a codebook."""
        if not self.model.codes:
            return {}
        use = code_use(self._histogram.cpu().numpy())
        return {"codes_used": use.used, "perplexity": use.perplexity, "restarted": self.clock.restarted}

    def _validate(self) -> None:
        held_out = self.held_out.arrays
        chosen = held_out[:: -(-len(held_out) // VALIDATION_FILES)]
        score, result = self.finishing.validate(self.average, chosen)
        # No validation figure measures what critics teach: the newest weights are kept.
        best = score > self.clock.best_score or self.model.critics is not None
        self._say(event="validation", step=self.clock.step, best=best, **result)
        shown = self.finishing.show(self.average, chosen[:8])
        shown.save(self.plan.folder / "samples" / f"step-{self.clock.step:09d}.png")
        if best:
            self.clock.best_score = score
            self.clock.best_step = self.clock.step
            weights.save(self.average.finished(), self._card({}), self.plan.folder / "best.safetensors")

    def _checkpoint(self) -> None:
        folder = self.plan.folder / "checkpoints"
        keep = self.settings.keep_checkpoints
        checkpoints.save(folder, self.model, self.average, self._optimisers, self.clock, keep)

    def finish(self) -> Run:
        """Complete the best weights with what they are coded by, and measure them."""
        best = self.plan.folder / "best.safetensors"
        self.tell({"event": "finishing"})
        model = copy.deepcopy(weights.load(best, self.device))
        measured = self.finishing.complete(model, self.data.arrays, self.held_out.arrays, self.settings.seed)
        card = weights.save(model, self._card(measured), best)
        with atomically(best.with_suffix(".json")) as file:
            file.write((json.dumps(card, indent=2) + "\n").encode())
        finishing.plot_losses(self.plan.folder, self.finishing.SHOWN)
        self._say(event="end", stage=self.plan.stage, best=str(best), **measured)
        return Run(self.plan.folder, best, card)

    def _card(self, measured: Mapping[str, Any]) -> dict[str, Any]:
        plan = self.plan
        training = {
            "chain": plan.chain,
            "data": self._described,
            "steps": self.clock.step,
            "best_step": self.clock.best_step,
            "hours": round(self.clock.elapsed_seconds / 3600, 2),
            "seed": self.settings.seed,
            "device": self.device.partition(":")[0],
            "note": plan.note,
        }
        return {"name": plan.weights_name, **self.model.describe(training, dict(measured))}

    @cached_property
    def _described(self) -> list[dict[str, str | int]]:
        """Hashed once: the card is written often, and the tar files may be large."""
        return datasets.describe([Path(p) for p in self.plan.data])

    def _say(self, **event: Any) -> None:
        folder = self.plan.folder
        with (folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(event) + "\n")
        with (folder / "log.txt").open("a") as file:
            values = (f"{k} {v:.5g}" if isinstance(v, float) else f"{k} {v}" for k, v in event.items())
            file.write(time.strftime("%H:%M:%S ") + ", ".join(values) + "\n")
        self.tell(event)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Ctrl-C finishes the step and saves; a second one interrupts at once."""

        def stop(_signal: int, _frame: Any) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True

        try:
            before = signal.signal(signal.SIGINT, stop)
        except ValueError:  # not in the main thread: the caller's handler stays
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def _batch(data: Any, settings: Settings, step: int) -> Tensor:
    """The samples of a step."""
    batch: Tensor = data.batch(step, seed=settings.seed, size=settings.batch, crop=settings.crop)
    return batch
