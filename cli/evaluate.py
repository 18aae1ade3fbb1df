"""`vqcodec evaluate`: rate and quality over real files, other codecs beside."""

import warnings
from pathlib import Path
from typing import Annotated, Any

import typer
from vqcodec.errors import UsageError, VqcodecWarning

from . import options, paths
from .batch import Batch, use_threads
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
PICTURES = {
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
PICTURE_MEANS = {
    "codec": "mean of",
    "q": "q",
    "same_bytes_as": "at the bytes of",
    "pictures": "pictures",
    "bytes": "bytes",
    "bpp": "bpp",
    "psnr_db": "PSNR dB",
    "ms_ssim": "MS-SSIM",
    "encode_mps": "encode MP/s",
    "decode_mps": "decode MP/s",
    **CODES,
    "estimate_bpp": "estimate",
}
LISTENERS = {"pesq_wb": "PESQ", "stoi": "STOI", "estoi": "ESTOI", "visqol": "ViSQOL"}
SOUNDS = {
    "file": "file",
    "codec": "codec",
    "q": "q",
    "bytes": "bytes",
    "kbps": "kbit/s",
    "log_mel": "log-mel",
    "si_sdr_db": "SI-SDR dB",
    **LISTENERS,
    "encode_seconds": "encode s",
    "decode_seconds": "decode s",
    **CODES,
    "estimate_kbps": "estimate",
}
SOUND_MEANS = {
    "codec": "mean of",
    "q": "q",
    "sounds": "sounds",
    "bytes": "bytes",
    "kbps": "kbit/s",
    "log_mel": "log-mel",
    "si_sdr_db": "SI-SDR dB",
    **LISTENERS,
    "encode_x": "encode x",
    "decode_x": "decode x",
    **CODES,
    "estimate_kbps": "estimate",
}
OPTIONAL = {"same_bytes_as", *LISTENERS, *CODES}
"""Columns that are left out where no row has anything in them."""


@command(progress=True)
def evaluate(
    console: Console,
    files: Annotated[
        list[str], typer.Argument(metavar="FOLDER|FILES", help="Pictures, sounds, or folders of them.")
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "-m", "--model", metavar="NAME|FILE", help="What to measure; repeatable.  [default: best shipped]"
        ),
    ] = None,
    quality: Annotated[
        list[float] | None,
        typer.Option("-q", "--quality", metavar="1..5", help="Operating points; repeatable.  [default: all]"),
    ] = None,
    against: Annotated[
        str,
        typer.Option(
            "--against",
            metavar="jpeg,webp,avif,opus[:KBPS]",
            help="Other codecs: of pictures at the same bytes; Opus at 6 kbit/s or as given.",
        ),
    ] = "",
    effort: options.Effort = 1,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE.csv|.json", help="Write all rows there.  [default: stdout]"
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            "--plot", metavar="FILE.png", help="Draw rate against quality (needs the extra 'plots')."
        ),
    ] = None,
    save_decoded: Annotated[
        str | None, typer.Option("--save-decoded", metavar="DIR", help="Keep the reconstructions there.")
    ] = None,
    force: options.Force = False,
    recursive: Annotated[
        bool, typer.Option("-r", "--recursive", help="Enter folders inside folders.")
    ] = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Measure rate, quality and speed on real files.

    Of pictures PSNR and MS-SSIM; of sounds, at 16 kHz, the log-mel distance and SI-SDR, and with the extra
    'metrics' PESQ, STOI, ESTOI and ViSQOL. Rates are those of real bitstreams, decoded again; -v shows the
    estimate by the model's own probabilities beside them.
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
    """The files to measure; a folder named as an argument is entered without -r, those inside are not."""
    if paths.STANDARD in arguments:
        raise UsageError("stdin cannot be measured", "name files or folders")
    found = paths.find(
        arguments,
        recursive=True,
        suffixes=paths.PICTURES | paths.SOUNDS,
        what=paths.MEDIA,
        silent={paths.BITSTREAM},
    )
    deep = [source for source in found.inputs if source.in_folder and source.below.parent != Path()]
    sources = [
        source.path
        for source in found.inputs
        if source.path is not None and (recursive or source not in deep)
    ]
    for name, error in found.failed:
        batch.fail(name, error)
    if not recursive and deep:
        batch.console.note(f"{len(deep)} files in inner folders left out; -r takes them too")
    if not sources:
        if found.failed:
            raise typer.Exit(batch.finish(sizes=False))
        raise UsageError(f"no {paths.MEDIA} in {', '.join(arguments)}", "add -r")
    return sources


def _check_output(target: str | None, suffixes: tuple[str, ...], force: bool) -> None:
    """Before hours of measuring: whether the result can be written.

    Raises:
        UsageError: a suffix that names no format, or no folder to write into.
        MediaError: the file exists.
    """
    if target is None:
        return
    path = Path(target)
    if path.suffix.lower() not in suffixes:
        raise UsageError(f"{target}: no format has this suffix", " or ".join(suffixes))
    if not path.parent.is_dir():
        raise UsageError(f"no folder {path.parent} to write into", f"mkdir {path.parent}")
    paths.check_free(path, force, hint="-f")


def _print(console: Console, rows: list[dict[str, Any]], means: list[dict[str, Any]]) -> None:
    """Tables of the pictures and of the sounds, each followed by its means."""
    pictures = ((rows, "bpp", PICTURES), (means, "bpp", PICTURE_MEANS))
    sounds = ((rows, "kbps", SOUNDS), (means, "kbps", SOUND_MEANS))
    first = True
    for table, rate, titles in (*pictures, *sounds):
        shown = [{**row, "q": _point(row.get("q"))} for row in table if row.get(rate) is not None]
        hidden = {name for name in OPTIONAL if all(row.get(name) is None for row in shown)}
        hidden |= set() if console.verbose else {"estimate_bpp", "estimate_kbps"}
        if shown:
            if not first:
                console.out("")
            console.table(shown, {name: title for name, title in titles.items() if name not in hidden})
            first = False


def _point(quality: float | None) -> str:
    return "-" if quality is None else f"{quality:g}"
