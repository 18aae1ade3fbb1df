"""`vqcodec encode`: compress images and audio to bitstreams."""

import time
from typing import Annotated

import typer
from vqcodec.errors import MediaError, UsageError

from . import options, paths
from .batch import (
    Batch,
    Fields,
    check_json,
    check_overwriting,
    extent,
    plain,
    refuse_existing,
    rehearse,
    shown,
    use_threads,
    work_through,
)
from .command import command
from .console import Bar, Console
from .streams import write_stdout

EXAMPLES = """\b
Examples:
  vqcodec encode photo.png song.wav            photo.vqc, song.vqc
  vqcodec encode *.jpg -o packed/              packed/NAME.vqc
  vqcodec encode holiday/ -r -o packed/        the whole tree
  vqcodec encode photo.png --target-size 40kB
  vqcodec encode lecture.mp3 --strip tags
  convert photo.heic png:- | vqcodec encode - > photo.vqc
"""


@command(progress=True)
def encode(
    console: Console,
    files: Annotated[
        list[str], typer.Argument(metavar="FILES", help="Images, audio files, folders (-r), or - for stdin.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A file, a folder (a new one ends in /), or - for stdout.  [default: next to the input]",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            metavar="NAME|FILE",
            help="A name that 'vqcodec models' lists, or a .safetensors file.  [default: best shipped]",
        ),
    ] = None,
    quality: Annotated[
        float | None,
        typer.Option(
            "-q",
            "--quality",
            min=1,
            max=5,
            metavar="1..5",
            help="Quality 1-5, 5 is best; images accept decimals.  [default: 3]",
        ),
    ] = None,
    bitrate: Annotated[
        float | None,
        typer.Option("--bitrate", metavar="KBPS", help="Audio: highest quality within this bitrate."),
    ] = None,
    bpp: Annotated[
        float | None,
        typer.Option(
            "--bpp", metavar="BITS", help="Images: highest quality within this many bits per pixel."
        ),
    ] = None,
    psnr: Annotated[
        float | None,
        typer.Option("--psnr", metavar="DB", help="Images: smallest file that reaches this PSNR."),
    ] = None,
    target_size: Annotated[
        int | None,
        typer.Option(
            "--target-size",
            parser=options.parse_size,
            metavar="SIZE",
            help="Highest quality that fits into this size, as 40kB or 1MiB.",
        ),
    ] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Images: store all pixels exactly, as lossless WebP does.")
    ] = False,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast", help="Use static tables: larger files, faster both ways. Audio and vqvae-image only."
        ),
    ] = False,
    effort: options.Effort = 1,
    max_pixels: options.MaxPixels = None,
    recursive: options.Recursive = False,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    strip: options.StripWhat = None,
    keep_gps: Annotated[
        bool,
        typer.Option("--keep-gps", help="Keep GPS positions, which are removed by default."),
    ] = False,
    no_mtime: options.NoMtime = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Decode the result, compare every code, and print PSNR or SI-SDR."),
    ] = False,
    dry_run: options.DryRun = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
) -> None:
    """Compress images (PNG JPEG WebP AVIF TIFF BMP GIF) and audio (WAV FLAC OGG Opus MP3 AIFF).

    The compression is lossy, except for text and graphics in images, which are stored exactly where that is
    cheaper, and with --lossless. The source is never deleted. EXIF, XMP, colour profiles and audio tags are
    kept, GPS positions and embedded thumbnails are removed. Audio frequencies above 8 kHz are lost.
    """
    if lossless + sum(option is not None for option in (quality, bitrate, bpp, psnr, target_size)) > 1:
        raise UsageError(
            "-q, --bitrate, --bpp, --psnr, --target-size and --lossless exclude each other",
            "give one of them",
        )
    check_overwriting(force, skip_existing)
    batch = Batch(console)
    found = paths.find(
        files,
        recursive=recursive,
        suffixes=paths.IMAGES | paths.AUDIO,
        what=paths.MEDIA,
        silent={paths.BITSTREAM},
    )
    todo = paths.plan(found.inputs, output, lambda source: paths.BITSTREAM, len(files))
    check_json(console, todo)
    batch.report_found(found, "not an image or audio file")
    if skip_existing:
        todo = batch.skip_existing(todo)
    if dry_run:
        target = _target(quality, bitrate, bpp, psnr, target_size, lossless)
        raise typer.Exit(
            rehearse(batch, todo, force, lambda job: {"model": _model_name(model, job.source), **target})
        )
    if not todo:
        raise typer.Exit(batch.finish())
    mixed = len(todo) > 1 and len({_medium(job.source) for job in todo}) > 1

    from vqcodec import weights

    # Before the first file: a wrong model or device fails the command, not each file.
    if model is None:
        weights.choose_device(device)
    else:
        weights.load(model, device=device)
    from vqcodec import pipeline

    use_threads(jobs)
    stripped = tuple(what.value for what in strip or ())

    def work(job: paths.Job, bar: Bar) -> Fields:
        refuse_existing(job, force)
        path = job.source.path
        source = path if path is not None and not job.source.is_stream else job.source.read()
        stamp = None if path is None or no_mtime else path.stat()
        started = time.perf_counter()
        limits: Fields = {} if max_pixels is None else {"max_pixels": max_pixels}
        try:
            encoded = pipeline.encode_file(
                source,
                pipeline.EncodeOptions(
                    model=model,
                    quality=quality,
                    bitrate=bitrate,
                    bpp=bpp,
                    psnr=psnr,
                    target_size=target_size,
                    lossless=lossless,
                    fast=fast,
                    effort=effort,
                    strip=stripped,
                    keep_gps=keep_gps,
                    device=device,
                    **limits,
                ),
                progress=bar.part,
            )
        except UsageError as error:
            if not mixed:
                raise
            # Among files of both media, an option for audio is an error of the images alone.
            raise MediaError(error.message, error.hint) from error
        console.note(f"{job.source.name}: coded in {time.perf_counter() - started:.3f} s", level=2)
        extra: Fields = {}
        if verify:
            started = time.perf_counter()
            figure = "psnr_db" if encoded.geometry.kind == "image" else "si_sdr_db"
            extra[figure] = round(float(pipeline.verify(encoded)), 3)
            console.note(f"{job.source.name}: verified in {time.perf_counter() - started:.3f} s", level=2)
        if job.output is None:
            write_stdout(encoded.data)
        else:
            with paths.replacing(job.output, force=force, stamp=stamp) as file:
                file.write(encoded.data)
        batch.count(encoded.geometry)
        rates = {"bpp": encoded.bpp, "kbps": encoded.kbps}
        return {
            "output": shown(job.output),
            "model": encoded.model,
            "quality": plain(encoded.quality),
            **extent(encoded.geometry),
            "bytes_in": len(source) if isinstance(source, bytes) else source.stat().st_size,
            "bytes_out": len(encoded.data),
            **{name: round(rate, 4) for name, rate in rates.items() if rate is not None},
            **extra,
        }

    work_through(batch, "encoding", todo, work)
    raise typer.Exit(batch.finish())


def _model_name(model: str | None, source: paths.Input) -> str:
    from vqcodec import weights

    if model is not None:
        weights.locate(model)
    return model or weights.DEFAULTS[_medium(source)]


def _medium(source: paths.Input) -> str:
    """Return the medium of an input, by its suffix, or by its first bytes if the suffix is unknown."""
    suffix = source.path.suffix.lower() if source.path is not None else ""
    if suffix in paths.IMAGES or suffix in paths.AUDIO:
        return "audio" if suffix in paths.AUDIO else "image"
    from vqcodec import media

    try:
        return "audio" if media.sound_format(source.head(16)) else "image"
    except OSError:  # reported when the file is encoded
        return "image"


def _target(
    quality: float | None,
    bitrate: float | None,
    bpp: float | None,
    psnr: float | None,
    target_size: int | None,
    lossless: bool,
) -> Fields:
    targets = {
        "bitrate": bitrate,
        "bpp": bpp,
        "psnr": psnr,
        "target_size": target_size,
        "lossless": lossless or None,
    }
    given = {name: value for name, value in targets.items() if value is not None}
    return given or {"quality": plain(quality if quality is not None else 3)}
