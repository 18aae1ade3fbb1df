"""`vqcodec sample`: draw new images and audio from a model's learned prior."""

import re
from pathlib import Path
from typing import Annotated

import typer
from vqcodec.errors import UsageError

from . import options, paths
from .batch import shown, use_threads
from .command import command
from .console import Console, printed_warnings

EXAMPLES = """\b
Examples:
  vqcodec sample -m vqvae-image --count 16 -o samples.png
  vqcodec sample -m vqvae-audio --seconds 6 -o babble.wav
  vqcodec sample -m rvqvae-audio -q 4 --seconds 6 -o babble.wav
  vqcodec sample --continue photo.vqc --fraction 0.6 -o completed.png
  vqcodec sample --resample bottom --from photo.vqc --temperature bottom=0.9
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
    quality: Annotated[
        float | None,
        typer.Option(
            "-q",
            "--quality",
            metavar="1..5",
            help="Quality, as in encode: which levels are drawn of models that have several.  [default: 3]",
        ),
    ] = None,
    temperature: Annotated[
        str,
        typer.Option(
            "--temperature",
            metavar="T",
            help="Sampling temperature; below 1 favours likely codes.  By plane: top=0.9,bottom=1.",
        ),
    ] = "1",
    top_k: Annotated[
        str | None,
        typer.Option("--top-k", metavar="K", help="Sample from the K most likely codes; also by plane."),
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
    resample: Annotated[
        str | None,
        typer.Option(
            "--resample",
            metavar="PLANE",
            help="Draw this plane of the --from file anew, keep those before it.",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", metavar="FILE.vqc", help="The file that --resample is about.")
    ] = None,
    force: options.Force = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Draw images or audio from a model's learned prior, code by code.

    The prior sees only a few dozen neighbours of a code: expect textures and babble, not scenes or sentences.
    """
    extent = _size(size)
    temperatures = _by_plane("--temperature", temperature)
    ranks = None if top_k is None else _by_plane("--top-k", top_k)
    if (resample is None) != (source is None) or (source is not None and continued is not None):
        raise UsageError("--resample and --from belong together", "--resample bottom --from photo.vqc")
    data = None
    if (name := continued or source) is not None:
        found = paths.find([name], suffixes={paths.BITSTREAM}, what="bitstreams", recursive=False)
        if not found.inputs:
            raise UsageError(f"{name}: no such file", "name a .vqc file")
        data = found.inputs[0].read()
    if output is not None:
        paths.check_free(Path(output), force, "replace it with -f")
    from vqcodec import media
    from vqcodec.pipeline import sampling

    use_threads(jobs)
    with printed_warnings(console):
        samples = sampling.sample(
            model,
            count=count,
            size=extent,
            seconds=seconds,
            quality=quality,
            temperature=temperatures,
            top_k=None if ranks is None else {plane: round(rank) for plane, rank in ranks.items()},
            seed=seed,
            continued=data,
            fraction=fraction,
            resample=resample,
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


def _by_plane(option: str, text: str) -> dict[str, float]:
    """Numbers by plane from "0.9" (of all, under "") or "top=0.9,bottom=1".

    Raises:
        UsageError: the text is neither.
    """
    found = {}
    for part in text.split(","):
        plane, _, number = part.strip().rpartition("=")
        try:
            found[plane] = float(number)
        except ValueError:
            raise UsageError(f"{option} {text}", f"a number, or by plane: {option} top=1,bottom=1") from None
        if option == "--top-k" and not found[plane].is_integer():
            raise UsageError(f"{option} {text}", "a whole number")
    return found


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d{1,6})[x×](\d{1,6})", text.strip().lower())
    if found is None:
        raise UsageError(f"--size {text} is not WxH", "write it as --size 256x256")
    return int(found[1]), int(found[2])
