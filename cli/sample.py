"""`vqcodec sample`: new pictures and sounds from the prior that compresses them."""

import re
from pathlib import Path
from typing import Annotated, Any

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
            help="See 'vqcodec models'.  [default: vqvae-image, or the model of --continue]",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A .png, all pictures in one grid; .wav, .flac: all sounds, half a second apart. "
            "[default: sample.png, sample.wav]",
        ),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=256, metavar="N", help="How many.")] = 1,
    size: Annotated[
        str | None, typer.Option("--size", metavar="WxH", help="Of pictures, in pixels.  [default: 128x128]")
    ] = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="S", help="Length of sounds.  [default: 4]")
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            "--temperature", min=1 / 16, max=16, metavar="T", help="Below 1: what is likely, more often."
        ),
    ] = 1.0,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, metavar="K", help="Among the K likeliest codes alone.")
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", min=0, max=2**63 - 1, metavar="N", help="The same: the same codes everywhere."
        ),
    ] = 0,
    continued: Annotated[
        str | None,
        typer.Option(
            "--continue", metavar="FILE.vqc", help="Complete this picture or sound from its beginning."
        ),
    ] = None,
    fraction: Annotated[
        float,
        typer.Option("--fraction", min=0, max=1, metavar="F", help="Of --continue: how much of it is kept."),
    ] = 0.5,
    force: options.Force = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Draw pictures or sounds from a codec's learned prior, code by code.

    The prior knows a few dozen codes around each: expect textures and babble, not scenes and sentences.
    """
    extent = _size(size)
    data = None
    if continued is not None:
        source = paths.find([continued], suffixes={paths.BITSTREAM}, what="bitstreams", recursive=False)
        if not source.inputs:
            raise UsageError(f"{continued}: no such file", "name a .vqc file")
        data = source.inputs[0].read()
    if output is not None:
        paths.check_free(Path(output), force, "-f")
    from vqcodec import media
    from vqcodec.pipeline import sampling

    use_threads(jobs)
    drawn = sampling.sample(
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
    pictures = isinstance(drawn[0], media.Image)
    formats = ("png",) if pictures else ("wav", "flac")
    target = Path(f"sample.{formats[0]}") if output is None else Path(output)
    format = target.suffix.lower().lstrip(".")
    if format not in formats:
        raise UsageError(
            f"{target}: samples of this model are .{' or .'.join(formats)}", f"-o NAME.{formats[0]}"
        )
    whole = sampling.sheet(drawn) if pictures else sampling.medley(drawn)
    write: Any = media.write_image if pictures else media.write_audio
    paths.check_free(target, force, "-f")
    with paths.replacing(target, force=force) as file:
        write(whole, file, format)
    console.record(type="sample", output=shown(target), count=count, seed=seed)
    console.note(f"{target}: {count} {'picture' if pictures else 'sound'}{'s' if count > 1 else ''}")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", text.strip().lower())
    if found is None:
        raise UsageError(f"--size {text}: not WxH", "--size 256x256")
    return int(found[1]), int(found[2])
