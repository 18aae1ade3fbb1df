"""`vqcodec evaluate`: measure rate and quality on real files, also of other codecs."""

import warnings
from pathlib import Path
from typing import Annotated

import typer
from vqcodec.errors import MediaError, UsageError, VqcodecWarning

from . import options, paths
from .batch import Batch, Fields, use_threads
from .command import command
from .console import Console

EXAMPLES = """\b
Examples:
  vqcodec evaluate kodak/
  vqcodec evaluate kodak/ --against jpeg,webp,avif -o rates.csv
  vqcodec evaluate talks/ --against opus,opus:12 --plot rates.png
  vqcodec evaluate photo.png -m vqvae-image -m runs/mine/best.safetensors
"""
CODES = {"bits_per_code": "bits/code", "saving": "saving", "gap": "gap"}
IMAGES = {
    "file": "file",
    "codec": "codec",
    "q": "q",
    "bytes": "bytes",
    "bpp": "bpp",
    "psnr_db": "PSNR dB",
    "ms_ssim": "MS-SSIM",
    "encode_seconds": "encode s",
    "decode_seconds": "decode s",
    **CODES,
    "estimate_bpp": "estimate",
}
IMAGE_MEANS = {
    "codec": "mean of",
    "q": "q",
    "same_bytes_as": "at the bytes of",
    "files": "images",
    "bytes": "bytes",
    "bpp": "bpp",
    "psnr_db": "PSNR dB",
    "ms_ssim": "MS-SSIM",
    "encode_mps": "encode MP/s",
    "decode_mps": "decode MP/s",
    **CODES,
    "estimate_bpp": "estimate",
}
PERCEPTUAL = {"pesq_wb": "PESQ", "stoi": "STOI", "estoi": "ESTOI", "visqol": "ViSQOL"}
AUDIO = {
    "file": "file",
    "codec": "codec",
    "q": "q",
    "bytes": "bytes",
    "kbps": "kbit/s",
    "log_mel": "log-mel",
    "si_sdr_db": "SI-SDR dB",
    **PERCEPTUAL,
    "encode_seconds": "encode s",
    "decode_seconds": "decode s",
    **CODES,
    "estimate_kbps": "estimate",
}
AUDIO_MEANS = {
    "codec": "mean of",
    "q": "q",
    "files": "files",
    "bytes": "bytes",
    "kbps": "kbit/s",
    "log_mel": "log-mel",
    "si_sdr_db": "SI-SDR dB",
    **PERCEPTUAL,
    "encode_x": "encode x",
    "decode_x": "decode x",
    **CODES,
    "estimate_kbps": "estimate",
}
OPTIONAL = {"same_bytes_as", *PERCEPTUAL, *CODES}
"""Columns that are omitted if no row has a value."""


@command(progress=True)
def evaluate(
    console: Console,
    files: Annotated[
        list[str], typer.Argument(metavar="FOLDER|FILES", help="Images, audio files, or folders of them.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME|FILE",
            help="Model to measure; repeatable.  [default: best shipped]",
        ),
    ] = None,
    quality: Annotated[
        list[float] | None,
        typer.Option(
            "-q",
            "--quality",
            metavar="1..5",
            help="Quality to measure; repeatable.  [default: all of the model]",
        ),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="jpeg,webp,avif,opus[:KBPS]",
            help="Other codecs to compare: those of images at equal bytes, Opus at 6 kbit/s or as given.",
        ),
    ] = "",
    effort: options.Effort = 1,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE.csv|.json", help="Write all rows to this file.  [default: stdout]"
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option("--plot", metavar="FILE.png", help="Plot quality over rate (needs the extra 'plots')."),
    ] = None,
    save_decoded: Annotated[
        str | None,
        typer.Option("--save-decoded", metavar="DIR", help="Write the reconstructions to this folder."),
    ] = None,
    force: options.Force = False,
    recursive: Annotated[
        bool, typer.Option("-r", "--recursive", help="Enter folders inside folders.")
    ] = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Measure rate, quality and speed on real files.

    Images: PSNR and MS-SSIM. Audio, at 16 kHz: log-mel distance and SI-SDR, and with the extra 'metrics'
    PESQ, STOI, ESTOI and ViSQOL. Rates are those of real bitstreams, decoded again; -v adds the estimate from
    the model's own probabilities.
    """
    for target, suffixes in ((output, (".csv", ".json")), (plot, (".png", ".svg", ".pdf"))):
        _check_output(target, suffixes, force)
    batch = Batch(console)
    sources = _files(files, recursive, batch)
    codecs = tuple(name.strip() for name in against.split(",") if name.strip())
    from vqcodec import evaluation

    use_threads(jobs)

    def failed(path: Path, error: Exception) -> None:
        batch.fail(str(path), error)

    with warnings.catch_warnings(record=True) as caught, console.bar("evaluating", 1) as bar:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", VqcodecWarning)
        rows = evaluation.evaluate(
            sources,
            model=model or None,
            quality=quality or None,
            against=codecs,
            effort=effort,
            save_decoded=save_decoded,
            device=device,
            progress=bar.part,
            on_error=failed,
        )
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        console.warning(None, text)
    means = evaluation.summary(rows)
    if output is not None:
        write = evaluation.write_csv if output.lower().endswith(".csv") else evaluation.write_json
        write(rows, output)
    if plot is not None and rows:
        evaluation.plot(rows, plot)
    for row in rows:
        console.record(type="row", **row)
    for row in means:
        console.record(type="mean", **row)
    _print(console, rows if output is None else [], means)
    batch.counts["ok"] = len(dict.fromkeys(row["file"] for row in rows))
    raise typer.Exit(batch.finish(sizes=False))


def _files(arguments: list[str], recursive: bool, batch: Batch) -> list[Path]:
    """Find the files to measure; folders that are named are entered without -r, those inside are not."""
    if paths.STANDARD in arguments:
        raise UsageError("stdin cannot be measured", "name files or folders")
    found = paths.find(
        arguments,
        recursive=True,
        suffixes=paths.IMAGES | paths.AUDIO,
        what=paths.MEDIA,
        silent={paths.BITSTREAM},
    )
    deep = [source for source in found.inputs if source.in_folder and source.below.parent != Path()]
    sources = [
        source.path
        for source in found.inputs
        if source.path is not None and not source.is_stream and (recursive or source not in deep)
    ]
    for source in found.inputs:
        if source.is_stream:
            problem = MediaError("a pipe can be read only once", "measure a file")
            found.failed.append((source.name, problem))
    for name, error in found.failed:
        batch.fail(name, error)
    for name, why in found.passed:
        batch.console.note(f"{name}: skipped, {why}")
    if not recursive and deep:
        batch.console.note(f"{len(deep)} files in inner folders left out; add -r to include them")
    if not sources:
        if found.failed:
            raise typer.Exit(batch.finish(sizes=False))
        raise UsageError(f"no {paths.MEDIA} in {', '.join(arguments)}", "add -r to enter inner folders")
    return sources


def _check_output(target: str | None, suffixes: tuple[str, ...], force: bool) -> None:
    """Check that the result can be written, before hours of measuring.

    Raises:
        UsageError: unknown suffix, or a folder that does not exist.
        MediaError: the file exists.
    """
    if target is None:
        return
    path = Path(target)
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{target}: no format has this suffix", f"use {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise UsageError(f"no folder {path.parent} to write into", f"make it first: mkdir {path.parent}")
    paths.check_free(path, force, hint="replace it with -f")


def _print(console: Console, rows: list[Fields], means: list[Fields]) -> None:
    """Print the tables of the images and of the audio, each followed by its means."""
    images = ((rows, "bpp", IMAGES), (means, "bpp", IMAGE_MEANS))
    audio = ((rows, "kbps", AUDIO), (means, "kbps", AUDIO_MEANS))
    first = True
    for table, rate, titles in (*images, *audio):
        shown = [{**row, "q": _quality_text(row.get("q"))} for row in table if row.get(rate) is not None]
        hidden = {name for name in OPTIONAL if all(row.get(name) is None for row in shown)}
        hidden |= set() if console.verbose else {"estimate_bpp", "estimate_kbps"}
        if shown:
            if not first:
                console.out("")
            console.table(shown, {name: title for name, title in titles.items() if name not in hidden})
            first = False


def _quality_text(quality: float | None) -> str:
    return "-" if quality is None else f"{quality:g}"
