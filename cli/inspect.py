"""`vqcodec inspect`: show what a model uses its latents or codes for."""

from pathlib import Path
from typing import Annotated

import typer
from vqcodec.errors import UsageError

from . import options, paths
from .batch import Fields, shown, use_threads
from .command import command
from .console import Console
from .train import Binarise

EXAMPLES = """\b
Examples:
  vqcodec inspect -m runs/vae-bits-1/best.safetensors digits.npy --binarise static
  vqcodec inspect -m runs/vae-bits-1/best.safetensors digits.npy --binarise static --importance 5000
  vqcodec inspect -m runs/beta-vae-1/best.safetensors sprites.npy --scores --traverse units.png
  vqcodec inspect -m vqvae-image photos/
"""
FIGURES = {
    "elbo": "ELBO",
    "importance": "importance bound",
    "distortion": "distortion",
    "rate": "rate (KL)",
    "auxiliary_rate": "rate by the auxiliary prior",
    "mutual_information": "mutual information",
    "bits_per_dimension": "bits per dimension",
    "noise_variance": "variance of the likelihood",
    "implied_variance": "variance implied by loss and settings",
    "factor_vae": "FactorVAE score",
    "mig": "MIG",
}
NATS = {"elbo", "importance", "distortion", "rate", "auxiliary_rate", "mutual_information"}
SHOWN = 16
"""Units or channels that are printed, those of the largest figures; --json has all."""

PLANES = {
    "plane": "plane",
    "codes": "codes",
    "codes_used": "used",
    "dead_codes": "dead",
    "perplexity": "perplexity",
    "bits_per_code": "bits per code",
    "channels": "channels",
    "channels_used": "used",
    "bpp": "bpp",
}


@command()
def inspect(
    console: Console,
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA",
            help="Images, audio, folders or tar files; sets of small pictures in .npy, .npz or idx(.gz).",
        ),
    ],
    model: Annotated[
        str,
        typer.Option("-m", "--model", metavar="NAME|FILE", help="A shipped model, or a .safetensors file."),
    ],
    importance: Annotated[
        int,
        typer.Option(
            "--importance", min=0, metavar="K", help="Samples of the importance-weighted bound; 0: without."
        ),
    ] = 0,
    binarise: Annotated[
        Binarise | None,
        typer.Option(
            "--binarise",
            metavar="static|dynamic|threshold",
            help="Make pixels 0 or 1, as in training; here dynamic ones are drawn once.",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("--count", min=1, metavar="N", help="Use N pictures or files.  [default: all]"),
    ] = None,
    scores: Annotated[
        bool, typer.Option("--scores", help="Score how units tell factors of sprites: FactorVAE and MIG.")
    ] = False,
    traverse: Annotated[
        str | None,
        typer.Option(
            "--traverse",
            metavar="FILE.png",
            help="Draw units by KL, a row each, from -2 to 2 standard deviations.",
        ),
    ] = None,
    interpolate: Annotated[
        tuple[int, int] | None,
        typer.Option(
            "--interpolate", metavar="A B", help="Draw the way from picture A of DATA to picture B, see -o."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.png",
            help="Where --interpolate draws, else interpolation.png.",
        ),
    ] = None,
    fail_if_collapsed: Annotated[
        bool,
        typer.Option("--fail-if-collapsed", help="Exit code 1 if nearly all units carry nothing."),
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, metavar="N", help="Random seed.")] = 0,
    force: options.Force = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Show what a model uses its latents or codes for.

    One latent vector per picture: the ELBO and its parts, KL by unit, active units, mutual information, and
    whether the model is collapsed. Codebooks: codes used, perplexity. Variable rate: bits of each channel.
    """
    if output is not None and interpolate is None:
        raise UsageError("-o without --interpolate", "add --interpolate A B, or leave out -o")
    way = None if interpolate is None else output or "interpolation.png"
    drawings = [name for name in (traverse, way) if name is not None]
    for name in drawings:
        if Path(name).suffix.lower() != ".png":
            raise UsageError(f"{name} is not a .png file", "name one")
        paths.check_free(Path(name), force, "replace it with -f")
    if len({Path(name).resolve() for name in drawings}) < len(drawings):
        raise UsageError(f"--traverse and --interpolate both draw {way}", "name another file with -o")
    from vqcodec import media
    from vqcodec.training.inspection import Inspection

    use_threads(jobs)
    how = None if binarise is None else binarise.value
    found = Inspection(model, data, binarise=how, count=count, seed=seed, device=device)
    for text in found.skipped:
        console.warning(None, f"skipped {text}")
    record = found.figures(importance=importance, scores=scores)
    images = [] if traverse is None else [found.traverse()]
    images += [] if interpolate is None else [found.interpolate(*interpolate)]
    for name, image in zip(drawings, images, strict=True):
        with paths.replacing(Path(name), force=force) as file:
            media.write(image, file, "png")
        console.note(f"written: {shown(Path(name))}")
    console.record(type="inspection", **record)
    _print(console, record)
    if fail_if_collapsed and record.get("collapsed"):
        raise typer.Exit(1)


def _print(console: Console, record: Fields) -> None:
    lines = [(str(record["model"]), f"{record['method']}, {record['files']:,} pictures or files")]
    for key, label in FIGURES.items():
        if key in record:
            nats = " nats" if key in NATS else ""
            lines.append((label, f"{record[key]:{'z.2f' if nats else '.4g'}}{nats}"))
    if "kl" in record:
        cap = f" of at most {record['ln_mixture']:.2f}, ln {record['mixture']:,}"
        lines = [
            (label, text + cap if label == FIGURES["mutual_information"] else text) for label, text in lines
        ]
        units = sorted(record["kl"], reverse=True)
        alike = "" if record["varied"] else ": all pictures are alike"
        lines.append(("active units", f"{record['active']} of {record['units']}{alike}"))
        lines.append(("KL by unit, sorted", " ".join(f"{nats:.2f}" for nats in units)))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        console.out(f"{label.ljust(width)}  {text}")
    if record.get("planes"):
        keys = {key for plane in record["planes"] for key in plane}
        console.table(record["planes"], {key: title for key, title in PLANES.items() if key in keys})
    for plane in record.get("planes", ()):
        if "bpp_by_channel" in plane:
            console.out(f"bpp by channel of {plane['plane']}  {_largest(plane['bpp_by_channel'], '.4f')}")
    if record.get("collapsed"):
        idle = record["units"] - record["active"]
        console.out(f"collapsed: {idle} of {record['units']} units are not active. Train with one of:")
        for cure in record["cures"]:
            console.out(f"  {cure}")


def _largest(figures: list[float], form: str) -> str:
    """Format the largest figures, in falling order."""
    words = [format(figure, form) for figure in sorted(figures, reverse=True)]
    return " ".join([*words[:SHOWN], "..."] if len(words) > SHOWN else words)
