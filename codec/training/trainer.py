"""The one training loop: steps, validation, checkpoints, exact resume, the finished model.

Every random choice of step n is a function of the seed and n alone (`batch` of the data set, the generator
given to `update`), so a checkpoint needs no generator state, and a resumed run repeats the uninterrupted one
bit for bit on the same CPU and thread count. Two things depend on time instead: the schedule of a time
budget, and interruptions, at which the weights are validated too.
"""

from __future__ import annotations

import copy
import json
import math
import time
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from .. import weights
from ..errors import TrainingError, UsageError
from ..figures import text_of
from ..files import append_line, atomically
from ..models.base import DISCRIMINATOR, Card, Figures
from . import checkpoints, datasets, distributed, finishing, precision, validation
from .capture import CUDAGraphed
from .checkpoints import TrainState
from .datasets import Augmentation, Dataset, Degradation
from .events import Report
from .interpolation import interpolate
from .interruption import Interruption
from .memory import peak_bytes
from .optimisers import Opponent, optimiser_of
from .plan import Plan
from .run_report import write_report
from .settings import held_out_share

LOG_EVERY, LOG_SECONDS = 100, 5.0
"""Steps and seconds after which the figures of steps are reported; those of the first step at once."""

LARGEST_RESERVE = 0.25
"""Most of a time budget that is kept for finishing."""


@dataclass(frozen=True)
class Run:
    """A finished training.

    Attributes:
        folder: everything the run wrote.
        best: the weights file that `encode(model=...)` takes.
        card: its model card.
        codes_files: whether the model codes files.
        improved: whether a step was better than the start, by the validation.
    """

    folder: Path
    best: Path
    card: Card
    codes_files: bool = True
    improved: bool = True


class Trainer:
    """The state of a run and the loop over it."""

    def __init__(self, plan: Plan, device: str, report: Report, *, fresh: bool = True) -> None:
        distributed.check(plan.settings.batch)
        self.plan, self.settings, self.device, self.report = plan, plan.settings, device, report
        self.state, self._began, self._reserve = TrainState(), time.monotonic(), 0.0
        self.model = plan.build()
        self.validation = validation.of(self.model, plan.stage)
        self.data, self.held_out = self._load_data()
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._set_weights(fresh)
        self.model.to(device)
        distributed.copy_from_leader([*self.model.state_dict().values()])
        self.model.train()
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.modules: dict[str, torch.nn.Module] = {"model": self.model, "average": self.average}
        if self.settings.start_weight:
            self.modules["start"] = copy.deepcopy(self.average)
        if self.settings.precision != "float32":
            precision.autocast(self.model, self.model.networks, getattr(torch, self.settings.precision))
        trained = ((n, p) for n, p in self.model.named_parameters() if p.requires_grad)
        named = {n: p for n, p in trained if not n.startswith(DISCRIMINATOR)}
        self.parameters = list(named.values())
        slow = [p for n, p in named.items() if n.startswith(self.model.slow)]
        fast = [p for n, p in named.items() if not n.startswith(self.model.slow)]
        self.optimiser = optimiser_of(self.settings, device, fast, slow)
        judge = self.model.discriminator
        self.opponent = None if judge is None else Opponent(judge, self.settings, device)
        self._loss = CUDAGraphed(self.model, self.model.loss)
        size, crop = self.settings.batch, self.settings.crop
        self._batches = datasets.Prefetcher(
            partial(self.data.batch, seed=self.settings.seed, size=size, crop=crop)
        )
        codec = self.model.codec
        planes = codec.at(codec.validation_points[-1]).planes if codec.validation_points else ()
        self._histograms = {
            p.name: torch.zeros(p.alphabet, dtype=torch.int64, device=device) for p in planes if p.alphabet
        }
        self._sums: dict[str, float] = {}
        self._summed = 0
        self._interruption = Interruption()

    def _set_weights(self, fresh: bool) -> None:
        """Start fresh, or from the weights that the plan names; of these also take the learned prior."""
        plan, start = self.plan, None
        # A resumed run does without its start, if that is gone.
        if plan.start is not None and plan.stage != "prior" and (fresh or Path(plan.start).is_file()):
            start = weights.load(plan.start, "cpu")
        if fresh and start is None:
            self.report({"event": "preparing"})
            self.model.start(self._start_batch, self._generator(0))
        if start is None:
            return
        if fresh:
            positions = math.prod(side // start.stride for side in self._start_batch(0).shape[2:])
            self.model.load_from(start, self.settings.batch * positions)
            self.model.complete(self._start_batch, self._generator(0))
        self.model = self.model.keep_prior(start)

    def run(self) -> Run:
        """Train to the end, then finish the model."""
        self.learn()
        return self.finish()

    def learn(self) -> None:
        """Train to the end; the best weights, or the newest, see `_keeps_last`, are in the run folder."""
        folder = self.plan.folder
        if distributed.leads():
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
        with self._interruption.awaited():
            if self.state.step == 0:
                self._validate()
                if self._interruption.asked:
                    self._checkpoint()
            if self.plan.seconds is not None and not self._interruption.asked:
                seconds = distributed.led(self._finishing_seconds)
                self._reserve = min(seconds, LARGEST_RESERVE * self.plan.seconds)
            self._loop()
        if self._interruption.asked:
            raise KeyboardInterrupt

    def try_one_step(self) -> Run:
        """One step on one batch, with its time and memory in the report; nothing is written."""
        self._step()
        started = time.perf_counter()
        terms = self._step()
        seconds = time.perf_counter() - started
        memory = {} if (peak := peak_bytes(self.device)) is None else {"peak_bytes": peak}
        self.report({"event": "dry-run", "seconds_per_step": seconds, **memory, **terms})
        return Run(
            self.plan.folder,
            self.plan.folder / "best.safetensors",
            self.model.make_card(self.plan.weights_name, {}, {}),
        )

    def restore(self) -> None:
        """Continue where the newest checkpoint of the run folder left off."""
        path = checkpoints.newest(self.plan.folder / "checkpoints")
        self.state = checkpoints.restore(path, self.modules, self._optimisers)

    def _loop(self) -> None:
        began = self._began - self.state.elapsed_seconds
        logged = self._began
        while self._progress() < 1 and not self._interruption.asked:
            terms = self._step()
            now = time.monotonic()
            elapsed, asked = distributed.most(now - began, self._interruption.asked)
            self.state.elapsed_seconds, self._interruption.asked = elapsed, bool(asked)
            if not math.isfinite(terms["loss"]):
                raise TrainingError(
                    f"the loss is not a number at step {self.state.step}",
                    f"--from {self.plan.folder / 'best.safetensors'} with a lower --lr",
                )
            self._summed += 1
            for name, value in terms.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            step = self.state.step
            if step == 1 or step % LOG_EVERY == 0 or now - logged >= LOG_SECONDS:
                self._log()
                logged = now
            if self.state.step % self.settings.checkpoint_every == 0:
                self._validate()
                self._checkpoint()
        unseen = self._keeps_last and self.state.best_step < self.state.step
        if self.state.step % self.settings.checkpoint_every or unseen:
            self._validate()
            self._checkpoint()

    def _step(self) -> dict[str, float]:
        settings, state = self.settings, self.state
        samples = distributed.part(self._batches.batch(state.step)).to(self.device)
        progress = self._progress()
        rate = settings.learning_rate * self._schedule(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["lr_scale"]
        self.optimiser.zero_grad(set_to_none=True)
        try:
            self._loss.prepare(samples)
            # Of the noise that a model may take, another one in each process.
            torch.manual_seed(distributed.seed((settings.seed << 32) + state.step))
            step = self._loss.run(samples)
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise TrainingError(
                f"out of memory at batches of {settings.batch}", "--batch or --crop"
            ) from error
        distributed.average(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip)
        self.optimiser.step()
        judged = {} if self.opponent is None else {DISCRIMINATOR[:-1]: self.opponent.learn(step, rate)}
        step = distributed.gathered(step)
        terms = {"loss": step.loss, **step.terms, **judged}
        for name, histogram in self._histograms.items():
            indices = step.symbols[name].flatten()
            histogram.index_add_(0, indices, torch.ones_like(indices))
        after = self.model.update(step, progress, self._generator(state.step + 1))
        state.restarted += after.get("restarted", 0)
        state.step += 1
        self._update_ema(min(settings.average, (1 + state.step) / (10 + state.step)))
        return dict(zip(terms, torch.stack([*terms.values()]).tolist(), strict=True))

    @torch.no_grad()
    def _update_ema(self, decay: float) -> None:
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
        optimisers = {"optimiser": self.optimiser}
        if self.opponent is not None:
            optimisers[DISCRIMINATOR[:-1]] = self.opponent.optimiser
        return optimisers

    def _progress(self) -> float:
        if self.plan.seconds is not None:
            return self.state.elapsed_seconds / (self.plan.seconds - self._reserve)
        return self.state.step / self.settings.steps

    def _schedule(self, progress: float) -> float:
        rise = min(1.0, (self.state.step + 1) / max(self.settings.warmup, 1))
        return rise * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))

    def _generator(self, number: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.settings.seed << 32) + number)

    def _start_batch(self, number: int) -> Tensor:
        settings = self.settings
        number += datasets.START
        return self.data.batch(number, seed=settings.seed, size=16, crop=settings.crop)

    def _load_data(self) -> tuple[Dataset, Dataset]:
        settings, codec = self.settings, self.model.codec
        load = partial(datasets.load, medium=codec.medium, rate=codec.rate, multiple=codec.stride)
        files = datasets.entries([Path(p) for p in self.plan.data])
        share = held_out_share(settings.validation)
        if share is None:
            others = datasets.entries([Path(settings.validation)])
            data, held_out = load(files, seed=settings.seed), load(others, whole=True)
        else:
            data, held_out = datasets.load_split(
                files, share, settings.seed, codec.medium, rate=codec.rate, multiple=codec.stride
            )
        if not codec.binary:
            if settings.binarise != "none":
                raise UsageError(f"{self.plan.name} is not for pixels of 0 and 1", "leave out --binarise")
            images = Degradation(settings.downscale, settings.noise, settings.coarse_chroma)
            audio = Augmentation(settings.reverberation, settings.equaliser, settings.noise)
            return datasets.augmented(data, held_out, images, audio)
        binarised = partial(datasets.binarised, how=settings.binarise, seed=settings.seed)
        return binarised(data), binarised(held_out, dynamic=False)

    def _log(self) -> None:
        mean = {name: total / self._summed for name, total in self._sums.items()}
        self._say(
            event="step",
            step=self.state.step,
            progress=min(self._progress(), 1.0),
            seconds=round(self.state.elapsed_seconds, 1),
            **self.model.log_figures(mean),
            **self._code_figures(),
            learning_rate=self.optimiser.param_groups[0]["lr"],
            **mean,
        )
        self._sums, self._summed = {}, 0
        for histogram in self._histograms.values():
            histogram.zero_()

    def _code_figures(self) -> dict[str, float]:
        """Use of the indices since the last report."""
        if not self._histograms:
            return {}
        counts = {name: histogram.cpu().numpy() for name, histogram in self._histograms.items()}
        return {**validation.use_figures(counts), "restarted": self.state.restarted}

    @property
    def _keeps_last(self) -> bool:
        """Whether the newest weights are kept: no validation figure measures what a discriminator teaches."""
        return self.opponent is not None or self.settings.keep == "last"

    def _validate(self) -> None:
        held_out = self.held_out.arrays
        chosen = held_out[:: -(-len(held_out) // self.validation.files)]
        averaged = copy.deepcopy(self.average)
        interpolate(averaged, self.modules.get("start"), self.settings.start_weight)
        averaged.prepare_export(self._start_batch)
        score, result = self.validation.validate(averaged, chosen)
        best = score > self.state.best_score or self._keeps_last
        self._say(event="validation", step=self.state.step, best=best, **result)
        if best:
            self.state.best_score, self.state.best_step = score, self.state.step
        if not distributed.leads():
            return
        shown = self.validation.preview_sheet(averaged, chosen[:8])
        with atomically(self.plan.folder / "samples" / f"step-{self.state.step:09d}.png") as file:
            shown.save(file, format="PNG")
        if best:
            weights.save(averaged.export(), self._card({}), self.plan.folder / "best.safetensors")
        write_report(self.plan.folder, self.plan.chain, self.device)

    def _checkpoint(self) -> None:
        if not distributed.leads():
            return
        folder = self.plan.folder / "checkpoints"
        keep = self.settings.keep_checkpoints
        checkpoints.save(folder, self.modules, self._optimisers, self.state, keep)

    def finish(self) -> Run:
        """Complete the best weights with what they are coded by, and measure them."""
        return distributed.led(self._finish)

    def _finish(self) -> Run:
        best = self.plan.folder / "best.safetensors"
        self.report({"event": "finishing"})
        model = finishing.completed(self.plan, self.data.arrays, self.device)
        measured = self.validation.measure(model, self.held_out.arrays)
        card = weights.save(model, self._card(measured), best)
        with atomically(best.with_suffix(".json")) as file:
            file.write((json.dumps(card.to_json(), indent=2) + "\n").encode())
        validation.plot_losses(self.plan.folder, self.validation.headline)
        improved = self._keeps_last or self.state.best_step > 0
        self._say(
            event="end", stage=self.plan.stage, best=str(best), best_step=self.state.best_step, **measured
        )
        write_report(self.plan.folder, self.plan.chain, self.device)
        return Run(self.plan.folder, best, card, bool(model.validation_points), improved)

    def _finishing_seconds(self) -> float:
        data, held_out = self.data.arrays, self.held_out.arrays
        return finishing.seconds(self.plan, self.validation, data, held_out, self.device)

    def _card(self, measured: Figures) -> Card:
        plan = self.plan
        training = {
            "chain": plan.chain,
            "data": self._described,
            "steps": self.state.step,
            "best_step": self.state.best_step,
            "hours": round(self.state.elapsed_seconds / 3600, 2),
            "seed": self.settings.seed,
            "device": self.device.partition(":")[0],
            "note": plan.note,
        }
        return self.model.make_card(plan.weights_name, training, measured)

    @cached_property
    def _described(self) -> list[dict[str, str | int]]:
        """Hashed once: the card is written often, and the tar files may be large."""
        return datasets.describe([Path(p) for p in self.plan.data])

    def _say(self, **event: object) -> None:
        if not distributed.leads():
            return
        folder = self.plan.folder
        append_line(folder / "metrics.jsonl", json.dumps(event))
        values = (f"{name} {text_of(value)}" for name, value in event.items())
        append_line(folder / "log.txt", time.strftime("%H:%M:%S ") + ", ".join(values))
        self.report(event)
