"""`vqcodec decode`: bitstreams in, pictures out."""

import io
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from vqcodec.errors import UsageError

from . import options, paths
from .batch import (
    Batch,
    Fields,
    check_json,
    check_overwriting,
    refuse_existing,
    rehearse,
    shown,
    use_threads,
    work_through,
)
from .console import Bar, Console

EXAMPLES = """\b
Examples:
  vqcodec decode photo.vqc                     photo.decoded.png
  vqcodec decode photo.vqc -o photo.jpg
  vqcodec decode packed/ -r -o pictures/ --format webp
  vqcodec decode --test *.vqc                  check, write nothing
  vqcodec decode - < photo.vqc | display -
"""
SUFFIXES = {f".{format.value}": format for format in options.Format} | {
    ".jpeg": options.Format.jpg,
    ".tif": options.Format.tiff,
}


def decode(
    bitstreams: Annotated[
        list[str], typer.Argument(metavar="BITSTREAMS", help=".vqc files, folders (-r), or - for stdin.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A file, a folder (a new one ends in /), - for stdout.  "
            "[default: NAME.decoded.png beside the input]",
        ),
    ] = None,
    format: Annotated[
        options.Format | None,
        typer.Option(
            "--format",
            metavar="png|jpg|webp|tiff|avif|bmp",
            help="Output format.  [default: that of -o, or png, which loses nothing more]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="FILE", help="Weights, where those needed are not shipped."),
    ] = None,
    test: Annotated[
        bool, typer.Option("-t", "--test", help="Decode, check every checksum, write nothing.")
    ] = False,
    salvage: Annotated[
        bool, typer.Option("--salvage", help="Fill what is damaged with grey; the exit code is then 1.")
    ] = False,
    max_pixels: options.MaxPixels = None,
    recursive: options.Recursive = False,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    strip: options.StripWhat = None,
    no_mtime: options.NoMtime = False,
    dry_run: options.DryRun = False,
    no_progress: options.NoProgress = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
    verbose: options.Verbose = 0,
    quiet: options.Quiet = False,
    json: options.Json = False,
    color: options.ColorWhen = options.Color.auto,
    version: options.Version = False,
) -> None:
    """Restore pictures from .vqc files, with their size, colour profile and tags.

    The orientation was applied to the pixels when the picture was encoded.
    """
    with Console(verbose=verbose, quiet=quiet, json=json, color=color, progress=not no_progress) as console:
        check_overwriting(force, skip_existing)
        batch = Batch(console)
        found = paths.find(
            bitstreams, recursive=recursive, suffixes={paths.BITSTREAM}, what="bitstreams", silent=()
        )
        formats: dict[paths.Job, options.Format] = {}
        if test:
            todo = [paths.Job(source, None) for source in found.inputs]
        else:
            suffix = (format or options.Format.png).value
            todo = paths.plan(
                found.inputs, output, lambda path: path.with_suffix(f".decoded.{suffix}"), len(bitstreams)
            )
            check_json(console, todo)
            formats = {job: format or format_of(job.output) for job in todo}
        batch.report_found(found, "not a bitstream")
        if skip_existing:
            todo = batch.skip_existing(todo)
        if dry_run:
            raise typer.Exit(rehearse(batch, todo, force, {}))
        if not todo:
            raise typer.Exit(batch.finish())
        if model is not None:
            from vqcodec import weights

            # Before the first file: a wrong model or device is a wrong command, not a wrong file.
            weights.load(model, device=device)

        def work(job: paths.Job, bar: Bar) -> Fields:
            refuse_existing(job, force)
            path = job.source.path
            data = job.source.read()
            stamp = None if path is None or no_mtime else path.stat()
            from vqcodec import container

            # A file that is not a bitstream is told before the networks are imported.
            header = container.read_info(data)
            from vqcodec import media, pipeline

            use_threads(jobs)
            started = time.perf_counter()
            limits: dict[str, Any] = {} if max_pixels is None else {"max_pixels": max_pixels}
            image = pipeline.decode(
                data,
                model=model,
                salvage=salvage,
                strip=tuple(what.value for what in strip or ()),
                device=device,
                progress=bar.part,
                **limits,
            )
            console.note(f"{job.source.name}: decoded in {time.perf_counter() - started:.3f} s", level=2)
            fields: Fields = {
                "model": header.model,
                "width": image.width,
                "height": image.height,
                "bytes_in": len(data),
            }
            if test:
                return fields
            fields["output"] = shown(job.output)
            if job.output is None:
                buffer = io.BytesIO()
                media.write_image(image, buffer, formats[job].value)
                paths.write_stdout(buffer.getvalue())
                return fields | {"bytes_out": buffer.tell()}
            with paths.replacing(job.output, force=force, stamp=stamp) as file:
                media.write_image(image, file, formats[job].value)
            return fields | {"bytes_out": job.output.stat().st_size}

        work_through(batch, "testing" if test else "decoding", todo, work)
        raise typer.Exit(batch.finish())


def format_of(output: Path | None) -> options.Format:
    """The format that an output's suffix asks for; PNG for stdout and devices.

    Raises:
        UsageError: no format has this suffix.
    """
    if output is None or paths.special(output):
        return options.Format.png
    try:
        return SUFFIXES[output.suffix.lower()]
    except KeyError:
        known = ", ".join(format.value for format in options.Format)
        raise UsageError(f"{output}: no output format has this suffix", f"--format {known}") from None
