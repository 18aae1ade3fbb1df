"""`vqcodec train`: train a model on your own files."""

import os
import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from vqcodec.errors import UsageError
from vqcodec.figures import text_of

from . import options
from .batch import Fields, plain, use_threads
from .command import command
from .console import Bar, Console, printable, printed_warnings, size_text, time_text

EXAMPLES = """\b
Examples:
  vqcodec train photos/ -m vqvae-image --time-budget 20m
  vqcodec train talks/ -m vqvae-audio --time-budget 1h
  vqcodec train photos/ more.tar -m vqvae-image -o runs/mine --set codes=1024
  vqcodec train photos/ -m vqvae-image --from vqvae-image --lr 1e-4
  vqcodec train photos/ --stage prior --from runs/mine/best.safetensors
  vqcodec train digits.npy -m vae-bits --binarise dynamic
  vqcodec train --resume runs/mine
"""


class Binarise(StrEnum):
    """Choose how bytes become 0 or 1."""

    static = "static"
    dynamic = "dynamic"
    threshold = "threshold"


class Stage(StrEnum):
    """Choose what is trained."""

    all = "all"
    codec = "codec"
    prior = "prior"


@command(progress=True)
def train(
    console: Console,
    data: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER|TAR|FILE",
            help="Folders or tar files of images or audio; sets of small pictures in .npy, .npz or idx(.gz).",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME",
            help="Model to train: vae-image, vqvae-image, vqvae-audio, ...; required unless --resume.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="NAME|FILE", help="Start from these weights.  [default: new ones]"),
    ] = None,
    stage: Annotated[
        Stage,
        typer.Option(
            "--stage",
            metavar="all|codec|prior",
            help="Train the codec, the learned prior of the codec in --from, or one after the other.",
        ),
    ] = Stage.all,
    plane: Annotated[
        str | None,
        typer.Option(
            "--plane",
            metavar="NAME",
            help="With --stage prior: the plane whose prior is trained, as top or bottom.  "
            "[default: one after the other]",
        ),
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            "--time-budget",
            parser=options.parse_duration,
            metavar="DURATION",
            help="Fit the schedule into this time, as 20m or 6h.",
        ),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="DIR", help="Run folder.  [default: runs/NAME-N]")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="DIR",
            help="Continue the run in this folder, bit for bit on a CPU; needs no FOLDER.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, metavar="N", help="Number of optimiser steps.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, metavar="N", help="Crops per step.")] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option("--lr", metavar="X", help="Peak learning rate; with --from a tenth."),
    ] = None,
    crop: Annotated[
        float | None,
        typer.Option(
            "--crop",
            metavar="PX|SECONDS",
            help="Side of image crops in pixels, or length of audio crops in seconds.",
        ),
    ] = None,
    binarise: Annotated[
        Binarise | None,
        typer.Option(
            "--binarise",
            metavar="static|dynamic|threshold",
            help="Make pixels 0 or 1, for models of such: 1 with probability v/255, drawn once or anew for "
            "every batch; or from 128 on.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, metavar="N", help="Random seed.")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Another setting, by its name in config.json; repeatable."
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="FILE.json", help="Take defaults from the config.json of a run."),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(
            "--validation",
            metavar="FOLDER|FRACTION",
            help="Folder of validation files, or share of the files to hold out.  [default: 0.05]",
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            "--checkpoint-every", min=1, metavar="N", help="Validate and save every N steps.  [default: 1000]"
        ),
    ] = None,
    keep_checkpoints: Annotated[
        int | None,
        typer.Option("--keep-checkpoints", min=1, metavar="N", help="Checkpoints to keep.  [default: 3]"),
    ] = None,
    note: Annotated[
        str,
        typer.Option(
            "--note",
            metavar="TEXT",
            help="Text for the model card, such as the source and licence of the data.",
        ),
    ] = "",
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Run one batch, print memory and time per step, and write nothing."),
    ] = False,
    tensorboard: Annotated[
        bool,
        typer.Option(
            "--tensorboard",
            help="Also write the numbers for TensorBoard, which shows them with --logdir RUN_FOLDER.",
        ),
    ] = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Train a model on your own images or audio.

    The run folder holds config.json, metrics.jsonl, report.html (curves and samples, written at each
    validation), checkpoints, samples, log.txt and best.safetensors: the best model so far, or the latest when
    trained against a discriminator. Ctrl-C finishes the step, saves,
    and prints how to resume.
    """
    _check(data, model, config, resume, start, output, stage)
    for path in data or []:
        if not Path(path).exists():
            raise UsageError(
                f"{path}: no such file or folder", "name folders, tar files, images or audio files"
            )
    values = _pairs(overrides or [])
    if os.environ.get("RANK", "0") != "0":
        # One of the processes that torchrun started tells for all.
        console.quiet, console.json, console.progress = True, False, False
    from vqcodec import training

    use_threads(jobs)
    folder = output if output is not None else resume
    with console.bar("training", 1) as bar, printed_warnings(console):
        report = Reporter(console, bar, folder)
        try:
            run = training.train(
                data or [],
                model=model,
                stage=stage.value,
                plane=plane,
                start=start,
                time_budget=time_budget,
                output=output,
                resume=resume,
                steps=steps,
                batch=batch,
                learning_rate=learning_rate,
                crop=None if crop is None else plain(crop),
                binarise=None if binarise is None else binarise.value,
                seed=seed,
                overrides=values,
                config=config,
                validation=validation,
                checkpoint_every=checkpoint_every,
                keep_checkpoints=keep_checkpoints,
                note=note,
                dry_run=dry_run,
                tensorboard=tensorboard,
                device=device,
                report=report,
            )
        except KeyboardInterrupt:
            if report.folder is not None and report.started:
                _say_resume(console, report.folder)
            raise
    if not dry_run:
        console.record(type="done", folder=str(run.folder), best=str(run.best), improved=run.improved)
        if run.improved:
            use = "encode -m {} FILES" if run.codes_files else "inspect -m {} DATA"
            console.note(f"use it: vqcodec {use.format(shlex.quote(str(run.best)))}")
        else:
            console.warning(None, f"no step was better than the start, which is what {run.best} holds")
            console.note("  try a lower --lr, more steps, or more files like those that you will encode")


class Reporter:
    """Report the events of a training run as lines, as records, or in the progress bar.

    Attributes:
        folder: the run folder, once it is known.
        started: whether there is a run that can be resumed.
    """

    def __init__(self, console: Console, bar: Bar, folder: str | None) -> None:
        self.console, self.bar, self.folder = console, bar, folder
        self.started = False

    def __call__(self, event: Fields) -> None:
        """Report one event."""
        self.console.record(type="event", **event)
        kind = event.get("event")
        if kind == "start":
            # The second stage has a folder inside that of the run; the outer one can be resumed.
            self.folder, self.started = self.folder or str(event["folder"]), True
        if self.console.json:
            return
        if kind == "step" and self.console.progress:
            self.bar.item(0, short(event))
            self.bar.share(event.get("progress", 0.0))
        else:
            self.console.note(line(event))


UNITS = {"seconds": time_text, "seconds_per_step": lambda v: f"{v:.3f} s", "peak_bytes": size_text}
LEFT_OUT = {"event", "step", "progress"}


def line(event: Fields) -> str:
    """Format an event as one line: "step 1200  loss 0.0123  psnr 27.1"."""
    words = [str(event.get("event", ""))]
    if "step" in event:
        words[0] = f"step {event['step']}" if words[0] == "step" else f"{words[0]} at step {event['step']}"
    for key, value in event.items():
        if key in LEFT_OUT or value is False:
            continue
        text = UNITS[key](value) if key in UNITS else "" if value is True else text_of(value)
        words.append(f"{key.removesuffix('_db').replace('_', ' ')} {text}".rstrip())
    return "  ".join(words)


def short(event: Fields) -> str:
    """Format the figures of a step that fit next to the bar."""
    wanted = ("loss", "bits", "psnr_db", "log_mel", "codes_used")
    return line({"event": "step"} | {key: event[key] for key in ("step", *wanted) if key in event})


def _check(
    data: list[str] | None,
    model: str | None,
    config: str | None,
    resume: str | None,
    start: str | None,
    output: str | None,
    stage: Stage,
) -> None:
    """Refuse options that contradict each other.

    Raises:
        UsageError: they do.
    """
    if resume is not None:
        given: dict[str, object] = {"FOLDER": data, "-m": model, "--config": config, "--from": start}
        given |= {"-o": output, "--stage": stage is not Stage.all}
        wrong = [name for name, value in given.items() if value]
        if wrong:
            raise UsageError(
                f"--resume continues a run as it was, without {', '.join(wrong)}", "leave these options out"
            )
        return
    if stage is Stage.prior:
        if start is None or model is not None or config is not None:
            raise UsageError(
                "a prior belongs to a codec",
                "use --stage prior with --from NAME, and without -m and --config",
            )
    elif model is None and config is None:
        from vqcodec.models import MODELS

        raise UsageError(
            "no model named", f"choose one with -m: {', '.join(MODELS)}; or continue a run with --resume DIR"
        )
    if not data:
        raise UsageError("nothing to train on", "name folders or tar files of images or audio")


def _pairs(settings: list[str]) -> dict[str, str]:
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise UsageError(f"--set {setting} is not KEY=VALUE", "write it as --set codes=1024")
        pairs[key.strip()] = value.strip()
    return pairs


def _say_resume(console: Console, folder: str) -> None:
    console.record(type="interrupted", folder=folder)
    console.note(f"resume: vqcodec train --resume {shlex.quote(printable(folder))}")
