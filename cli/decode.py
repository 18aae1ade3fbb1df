"""`vqcodec decode`: restore images and audio from bitstreams."""

import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from vqcodec.errors import MediaError, UsageError, VqcodecError
from vqcodec.files import is_special

from . import options, paths
from .batch import (
    Batch,
    Fields,
    check_json,
    check_overwriting,
    extent,
    refuse_existing,
    rehearse,
    shown,
    use_threads,
    work_through,
)
from .command import command
from .console import Bar, Console
from .streams import BLOCK, write_stdout

if TYPE_CHECKING:
    from vqcodec.media import Audio, Image

EXAMPLES = """\b
Examples:
  vqcodec decode photo.vqc song.vqc            photo.decoded.png, song.decoded.wav
  vqcodec decode photo.vqc -o photo.jpg
  vqcodec decode song.vqc --format flac        song.decoded.flac
  vqcodec decode packed/ -r -o images/ --format webp
  vqcodec decode --test *.vqc                  check, write nothing
  vqcodec decode - < photo.vqc | display -
"""
SUFFIXES = {f".{format.value}": format for format in options.Format} | {
    ".jpeg": options.Format.jpg,
    ".tif": options.Format.tiff,
    ".aif": options.Format.aiff,
    ".oga": options.Format.ogg,
}
DEFAULTS = {"image": options.Format.png, "audio": options.Format.wav}
KINDS = {"image": "an image", "audio": "audio"}


@command(progress=True)
def decode(
    console: Console,
    bitstreams: Annotated[
        list[str], typer.Argument(metavar="BITSTREAMS", help=".vqc files, folders (-r), or - for stdin.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A file, a folder (a new one ends in /), or - for stdout.  "
            "[default: NAME.decoded.png or .wav next to the input]",
        ),
    ] = None,
    format: Annotated[
        options.Format | None,
        typer.Option(
            "--format",
            metavar="png|jpg|webp|tiff|avif|bmp|wav|flac|ogg|opus|mp3|aiff",
            help="Output format.  [default: by the suffix of -o, otherwise png or wav, which are lossless]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="FILE", help="Weights of a model that is not shipped."),
    ] = None,
    decoder: Annotated[
        str | None,
        typer.Option(
            "--decoder",
            metavar="NAME|FILE",
            help="Audio: wavenet is the autoregressive decoder, which is slow.  [default: the model's own]",
        ),
    ] = None,
    test: Annotated[
        bool, typer.Option("-t", "--test", help="Decode and check every checksum; write nothing.")
    ] = False,
    salvage: Annotated[
        bool,
        typer.Option("--salvage", help="Fill damaged parts with grey or silence; the exit code is then 1."),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option("--preview", help="Images: an eighth of the size, faster, from a part of the codes."),
    ] = False,
    max_pixels: options.MaxPixels = None,
    max_seconds: options.MaxSeconds = None,
    recursive: options.Recursive = False,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    strip: options.StripWhat = None,
    no_mtime: options.NoMtime = False,
    dry_run: options.DryRun = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Restore images and audio from .vqc files, with size, colour profile, sample rate, channels and tags.

    Images come out upright: their orientation was applied to the pixels when they were encoded.
    """
    check_overwriting(force, skip_existing)
    batch = Batch(console)
    found = paths.find(
        bitstreams, recursive=recursive, suffixes={paths.BITSTREAM}, what="bitstreams", silent=()
    )
    formats: dict[paths.Job, options.Format | None] = {}
    if test:
        todo = [paths.Job(source, None) for source in found.inputs]
    else:
        todo = paths.plan(
            found.inputs,
            output,
            lambda source: f".decoded.{(format or DEFAULTS[kind_of(source) or 'image']).value}",
            len(bitstreams),
            known={paths.BITSTREAM},
        )
        check_json(console, todo)
        formats = {job: format or format_of(job.output) for job in todo}
    batch.report_found(found, "not a bitstream")
    if skip_existing:
        todo = batch.skip_existing(todo)
    if dry_run:

        def plan(job: paths.Job) -> Fields:
            if (kind := kind_of(job.source)) is not None:
                fitting(formats.get(job), kind)
            return {}

        raise typer.Exit(rehearse(batch, todo, force, plan))
    if not todo:
        raise typer.Exit(batch.finish())
    if model is not None:
        from vqcodec import weights

        # Before the first file: a wrong model or device fails the command, not each file.
        weights.load(model, device=device)

    def work(job: paths.Job, bar: Bar) -> Fields:
        refuse_existing(job, force)
        path = job.source.path
        data = job.source.read()
        stamp = None if path is None or no_mtime else path.stat()
        from vqcodec.bitstream import container

        # A file that is not a bitstream fails before the networks are imported.
        header = container.read_info(data)
        target = fitting(formats.get(job), header.kind)
        if isinstance(header.geometry, container.AudioGeometry) and not test:
            from vqcodec.media import AUDIO_FORMATS, audio_files

            # Before the networks run for minutes: whether the format can hold the audio.
            kind = AUDIO_FORMATS[f".{target.value}"]
            audio_files.check_fit(*kind, header.geometry.channels, header.geometry.rate)
        from vqcodec import media, pipeline

        use_threads(jobs)
        started = time.perf_counter()
        limits: Fields = {"max_pixels": max_pixels, "max_seconds": max_seconds}
        decoded = pipeline.decode(
            data,
            model=model,
            decoder=decoder,
            salvage=salvage,
            preview=preview,
            strip=tuple(what.value for what in strip or ()),
            device=device,
            progress=bar.part,
            **{name: limit for name, limit in limits.items() if limit is not None},
        )
        console.note(f"{job.source.name}: decoded in {time.perf_counter() - started:.3f} s", level=2)
        fields: Fields = {"model": header.model, **extent(header.geometry), "bytes_in": len(data)}
        if preview and isinstance(decoded, media.Image):
            fields |= {"width": decoded.width, "height": decoded.height}
        if test:
            return fields
        written = _write(decoded, job.output, target, force, stamp)
        return fields | {"output": shown(job.output), "bytes_out": written}

    work_through(batch, "testing" if test else "decoding", todo, work)
    raise typer.Exit(batch.finish())


def _write(
    decoded: "Image | Audio",
    output: Path | None,
    target: options.Format,
    force: bool,
    stamp: os.stat_result | None,
) -> int:
    """Write an image or audio to a file or stdout; return its size in bytes."""
    from vqcodec import media

    if output is not None and not is_special(output):
        with paths.replacing(output, force=force, stamp=stamp) as file:
            media.write(decoded, file, target.value)
        return output.stat().st_size
    # Writers seek back to store a length in the header, which a pipe does not allow.
    with tempfile.TemporaryFile() as whole:
        media.write(decoded, whole, target.value)
        size = whole.seek(0, os.SEEK_END)
        whole.seek(0)
        if output is None:
            write_stdout(whole)
        else:
            with paths.replacing(output, force=force) as pipe:
                shutil.copyfileobj(whole, pipe, BLOCK)
    return size


def kind_of(source: paths.Input) -> str | None:
    """Read the medium from a header, "image" or "audio"; None if unreadable, which is reported later."""
    from vqcodec.bitstream import container, header

    try:
        return container.read_info(source.head(header.MAX_HEADER)).kind
    except (VqcodecError, OSError):
        return None


def fitting(format: options.Format | None, kind: str) -> options.Format:
    """Return the format to write; None stands for the default of the medium.

    Raises:
        MediaError: the format is one of the other medium.
    """
    if format is not None and format.kind != kind:
        raise MediaError(
            f"{format.value} is an {format.kind} format, the content is {KINDS[kind]}",
            f"choose another format, such as --format {DEFAULTS[kind].value}",
        )
    return format or DEFAULTS[kind]


def format_of(output: Path | None) -> options.Format | None:
    """Return the format of an output's suffix; None for stdout and devices.

    Raises:
        UsageError: no format has this suffix.
    """
    if output is None or is_special(output):
        return None
    try:
        return SUFFIXES[output.suffix.lower()]
    except KeyError:
        known = ", ".join(format.value for format in options.Format)
        raise UsageError(
            f"{output}: no output format has this suffix", f"choose one with --format: {known}"
        ) from None
