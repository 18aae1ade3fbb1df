"""`vqcodec evaluate`: measure rate and quality on real files, also of other codecs."""

import shlex
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vqcodec.errors import MediaError, UsageError, VqcodecWarning

from . import options, paths
from .batch import Batch, Fields, use_threads
from .command import command
from .console import Console

if TYPE_CHECKING:
    from vqcodec.evaluation.figures import Figure

EXAMPLES = """\b
Examples:
  vqcodec evaluate kodak/
  vqcodec evaluate kodak/ --against jpeg,webp,avif -o rates.csv
  vqcodec evaluate kodak/ --against avif,jxl --sweep --report report.html
  vqcodec evaluate talks/ --against opus,opus:12 --plot rates.png
  vqcodec evaluate photo.png -m vqvae-image -m runs/mine/best.safetensors
"""
CODES = {"bits_per_code": "bits/code", "saving": "saving", "gap": "gap"}
ESTIMATES = {"estimate_bpp": "estimate", "estimate_kbps": "estimate"}
SECONDS = {"encode_seconds": "encode s", "decode_seconds": "decode s"}


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
            metavar="jpeg,webp,avif,jxl,opus[:KBPS]",
            help="Other codecs to compare: those of images at equal bytes, Opus at 6 kbit/s or as given. "
            "JPEG XL needs the extra 'formats'.",
        ),
    ] = "",
    sweep: Annotated[
        bool,
        typer.Option("--sweep", help="Measure other codecs also over their own range of qualities."),
    ] = False,
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
    report: Annotated[
        str | None,
        typer.Option(
            "--report",
            metavar="FILE.html",
            help="Write one self-contained page: tables, curves, the worst files to look at and listen to.",
        ),
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

    Images: PSNR and MS-SSIM, and with the extra 'metrics' SSIMULACRA2. Audio, at 16 kHz: log-mel distance and
    SI-SDR, and with the extra 'metrics' PESQ, STOI, ESTOI and ViSQOL. Rates are those of real bitstreams,
    decoded again; -v adds the estimate from the model's own probabilities. BD-rates compare whole curves:
    the mean difference of rate at equal quality, over at least two points of each codec (with --sweep, over
    its own range).
    """
    for target, suffixes in (
        (output, (".csv", ".json")),
        (plot, (".png", ".svg", ".pdf")),
        (report, (".html",)),
    ):
        _check_output(target, suffixes, force)
    batch = Batch(console)
    sources = _files(files, recursive, batch)
    codecs = tuple(name.strip() for name in against.split(",") if name.strip())
    from vqcodec import evaluation

    use_threads(jobs)

    gallery = None if report is None else evaluation.Gallery()

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
            sweep=sweep,
            effort=effort,
            save_decoded=save_decoded,
            device=device,
            progress=bar.part,
            on_error=failed,
            gallery=gallery,
        )
    for text in dict.fromkeys(str(warning.message) for warning in caught):
        console.warning(None, text)
    means, differences = evaluation.summary(rows), evaluation.bd_rates(rows)
    if output is not None:
        write = evaluation.write_csv if output.lower().endswith(".csv") else evaluation.write_json
        write(rows, output)
    if plot is not None and rows:
        evaluation.plot(rows, plot)
    if report is not None:
        evaluation.write_report(rows, report, gallery=gallery, command=shlex.join(["vqcodec", *sys.argv[1:]]))
    for row in rows:
        console.record(type="row", **row)
    for row in means:
        console.record(type="mean", **row)
    for row in differences:
        console.record(type="bd_rate", **row)
    listed = rows if output is None else []
    found = [
        table
        for figures, rate in ((evaluation.figures.IMAGE, "bpp"), (evaluation.figures.AUDIO, "kbps"))
        for table in _tables(figures, rate, listed, means, differences, console.verbose)
    ]
    for number, (shown, titles) in enumerate(found):
        if number:
            console.out("")
        console.table(shown, titles)
    _explain(console, rows, means, differences)
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
        source.file
        for source in found.inputs
        if source.file is not None and (recursive or source not in deep)
    ]
    for source in found.inputs:
        if source.is_remote:
            found.failed.append((source.name, MediaError("is not on a local disk", "copy it here first")))
        elif source.is_stream:
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


def _tables(
    figures: "tuple[Figure, ...]",
    rate: str,
    rows: list[Fields],
    means: list[Fields],
    differences: list[Fields],
    verbose: int,
) -> Iterator[tuple[list[Fields], dict[str, str]]]:
    """Yield the tables of one medium with the titles of their columns: rows, means, BD-rates."""
    from vqcodec.evaluation.figures import COUNTS, RATES, SPEEDS

    titles = {figure.key: figure.title for figure in figures}
    first = {"q": "q", "bytes": "bytes", rate: RATES[rate]}
    size = {"same_bytes_as": "at the bytes of", "files": "files"}
    last = {**CODES, **(ESTIMATES if verbose else {})}
    percent = {key: f"by {title}, %" for key, title in titles.items()}
    rows, means = ([row for row in each if row.get(rate) is not None] for each in (rows, means))
    pairs = [row for row in differences if row["codec"] in {mean["codec"] for mean in means}]
    for table, columns in (
        (rows, {"file": "file", "codec": "codec", **first, **titles, **SECONDS, **last}),
        (means, {"codec": "mean of", **size, **first, **titles, **SPEEDS, **COUNTS, **last}),
        (pairs, {"codec": "BD-rate of", "against": "against", "files": "files", **percent}),
    ):
        shown = [{**row, "q": _quality_text(row.get("q"))} for row in table]
        there = {name for row in shown for name, value in row.items() if value is not None}
        there -= {name for name in COUNTS if not any(row.get(name) for row in shown)}
        if shown:
            yield shown, {name: title for name, title in columns.items() if name in there}


def _explain(console: Console, rows: list[Fields], means: list[Fields], differences: list[Fields]) -> None:
    """Explain the columns, on stderr, and name figures that could not be measured."""
    from vqcodec.evaluation.figures import AUDIO, COUNTS, IMAGE, OTHERS, RATES, SPEEDS, absent

    there = {name for row in (*rows, *means) for name, value in row.items() if value not in (None, 0)}
    for figure in (*IMAGE, *AUDIO):
        if figure.key in there:
            console.note(f"{figure.title}: {figure.meaning}")
    for name, meaning in OTHERS.items():
        title = {**RATES, **CODES, **SPEEDS, **COUNTS}[name]
        if name in there:
            console.note(f"{title}: {meaning}")
    if differences:
        console.note("BD-rate: mean difference of rate at equal quality, mean of the files; less is better")
    if missing := absent(rows):
        names = ", ".join(figure.title for figure in missing)
        console.note(f"not measured: {names}; install them with pip install 'vqcodec[metrics]'")


def _quality_text(quality: float | None) -> str:
    return "-" if quality is None else f"{quality:g}"
