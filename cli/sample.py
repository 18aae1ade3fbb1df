"""`vqcodec sample`: draw new images and audio from a model's learned prior."""

import re
from pathlib import Path
from typing import Annotated

import typer
from vqcodec.errors import UsageError

from . import options, paths
from .batch import shown, use_threads
from .command import command
from .console import Console

EXAMPLES = """\b
Examples:
  vqcodec sample -m vqvae-image --count 16 -o samples.png
  vqcodec sample -m vqvae-audio --seconds 6 -o babble.wav
  vqcodec sample --continue photo.vqc --fraction 0.6 -o completed.png
"""


@command()
def sample(
    console: Console,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME|FILE",
            help="A name that 'vqcodec models' lists, or a .safetensors file.  "
            "[default: vqvae-image, or the model of --continue]",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A .png file for all images in one grid, or a .wav or .flac file for all audio in a row.  "
            "[default: sample.png, sample.wav]",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", min=1, max=256, metavar="N", help="Number of samples.")
    ] = 1,
    size: Annotated[
        str | None,
        typer.Option("--size", metavar="WxH", help="Size of images in pixels.  [default: 128x128]"),
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", help="Length of audio in seconds.  [default: 4]")
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature",
            min=1 / 16,
            max=16,
            metavar="T",
            help="Sampling temperature; below 1 favours likely codes.",
        ),
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, metavar="K", help="Sample from the K most likely codes.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed",
            min=0,
            max=2**63 - 1,
            metavar="N",
            help="Random seed; the same seed gives the same codes on every machine.",
        ),
    ] = 0,
    continued: Annotated[
        str | None,
        typer.Option(
            "--continue", metavar="FILE.vqc", help="Complete this image or audio from its beginning."
        ),
    ] = None,
    fraction: Annotated[
        float,
        typer.Option(
            "--fraction", min=0, max=1, metavar="F", help="Share of the --continue file that is kept."
        ),
    ] = 0.5,
    force: options.Force = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Draw images or audio from a model's learned prior, code by code.

    The prior sees only a few dozen neighbours of a code: expect textures and babble, not scenes or sentences.
    """
    extent = _size(size)
    data = None
    if continued is not None:
        source = paths.find([continued], suffixes={paths.BITSTREAM}, what="bitstreams", recursive=False)
        if not source.inputs:
            raise UsageError(f"{continued}: no such file", "name a .vqc file")
        data = source.inputs[0].read()
    if output is not None:
        paths.check_free(Path(output), force, "replace it with -f")
    from vqcodec import media
    from vqcodec.pipeline import sampling

    use_threads(jobs)
    samples = sampling.sample(
        model,
        count=count,
        size=extent,
        seconds=seconds,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
        continued=data,
        fraction=fraction,
        device=device,
    )
    images = isinstance(samples[0], media.Image)
    formats = ("png",) if images else ("wav", "flac")
    target = Path(f"sample.{formats[0]}") if output is None else Path(output)
    format = target.suffix.lower().lstrip(".")
    if format not in formats:
        raise UsageError(
            f"{target}: samples of this model are .{' or .'.join(formats)}",
            f"write to a .{formats[0]} file with -o",
        )
    whole = sampling.combine(samples)
    paths.check_free(target, force, "replace it with -f")
    with paths.replacing(target, force=force) as file:
        media.write(whole, file, format)
    console.record(type="sample", output=shown(target), count=count, seed=seed)
    console.note(f"{target}: {count} {'image' if images else 'audio sample'}{'s' if count > 1 else ''}")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", text.strip().lower())
    if found is None:
        raise UsageError(f"--size {text} is not WxH", "write it as --size 256x256")
    return int(found[1]), int(found[2])
