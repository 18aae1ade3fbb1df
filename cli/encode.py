"""`vqcodec encode`: compress images and audio to bitstreams."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from vqcodec.errors import MediaError, UsageError

from . import options, paths
from .batch import Batch, extent, plain, shown, use_threads
from .command import command
from .console import Console
from .outcome import Fields, Outcome
from .outputs import (
    check_json,
    check_overwriting,
    check_ray,
    check_tar,
    deliver,
    first_of,
    into_tar,
    refuse_existing,
    rehearse,
)
from .remote import expand
from .schedule import work_through
from .sources import Sources
from .workers import Jobs, Progress

if TYPE_CHECKING:
    from vqcodec.pipeline import Encoded, EncodedSet

SMALL_IMAGE, SMALL_AUDIO = 1 << 16, 1 << 20
"""Size in bytes up to which files are coded together: some hundred pixels a side, a minute or less."""

EXAMPLES = """\b
Examples:
  vqcodec encode photo.png song.wav            photo.vqc, song.vqc
  vqcodec encode *.jpg -o packed/              packed/NAME.vqc
  vqcodec encode holiday/ -r -o packed/        the whole tree
  vqcodec encode photos.tar                    photos.vqc.tar
  find . -name '*.jpg' -print0 | vqcodec encode --files-from - -0 -o packed/
  vqcodec encode photo.png --target-size 40kB
  vqcodec encode lecture.mp3 --strip tags
  vqcodec encode digits.npy                    a set of small pictures of 0 and 1, without loss
  convert photo.heic png:- | vqcodec encode - > photo.vqc
"""


@command(progress=True)
def encode(
    console: Console,
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILES", help="Images, audio, sets of pictures, folders (-r), tars, or - for stdin."
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A file, a folder (a new one ends in /), a .tar, or - for stdout.  "
            "[default: next to the input]",
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
    tune: Annotated[
        options.Tune | None,
        typer.Option("--tune", help="Images: weights for the eye, or for the best PSNR.  [default: visual]"),
    ] = None,
    quality: Annotated[
        float | None,
        typer.Option(
            "-q",
            "--quality",
            min=1,
            max=5,
            metavar="1..5",
            help="Quality 1-5, 5 is best; images accept decimals; levels of rvqvae-audio.  [default: 3]",
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
        bool,
        typer.Option("--lossless", help="Images: store all pixels exactly; photographs by a learned prior."),
    ] = False,
    fast: Annotated[
        bool,
        typer.Option(
            "--fast",
            help="Use static tables: larger files, faster both ways. Audio, vqvae-image and --lossless only.",
        ),
    ] = False,
    effort: options.Effort = 1,
    max_pixels: options.MaxPixels = None,
    recursive: options.Recursive = False,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
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
    pixel_crc: Annotated[
        bool,
        typer.Option(
            "--pixel-crc",
            help="Images: add a CRC of the decoded pixels, which decode checks (12 bytes); of models trained "
            "with integer_synthesis.",
        ),
    ] = False,
    dry_run: options.DryRun = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
    ray: options.Ray = None,
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
    if tune is not None and (model is not None or lossless):
        why = "as -m does" if model is not None else "and --lossless stores pixels without one"
        raise UsageError(f"--tune chooses the model, {why}", "leave out one of them")
    check_overwriting(force, skip_existing)
    sources = Sources(
        expand(files or []),
        recursive=recursive,
        files_from=files_from,
        null=null,
        suffixes=paths.IMAGES | paths.AUDIO,
        what=paths.MEDIA,
        silent={paths.BITSTREAM},
    )
    output = sources.output(output, paths.BITSTREAM)
    sources.check(output)
    check_tar(output, force, skip_existing)
    check_ray(ray, output, device)
    batch = Batch(console)
    todo = sources.jobs(
        output,
        lambda source: paths.BITSTREAM,
        lambda found: batch.report_found(found, "not an image or audio file", sets=True),
        batch.fail,
    )
    first, todo = first_of(todo)
    check_json(console, first)
    if skip_existing:
        first, todo = first_of(batch.skip_existing(todo))
    if dry_run:
        target = _target(quality, bitrate, bpp, psnr, target_size, lossless)
        planned = lambda job: {"model": _model_name(model, tune, job.source), **target}  # noqa: E731
        raise typer.Exit(rehearse(batch, todo, force, planned))
    if first is None:
        raise typer.Exit(batch.finish())

    from vqcodec import weights

    # Before the first file: a wrong model or device fails the command, not each file.
    if model is None:
        weights.choose_device(device)
    else:
        weights.load(model, device=device)
    limits: Fields = {} if max_pixels is None else {"max_pixels": max_pixels}
    settings: Fields = {
        "model": model,
        "quality": quality,
        "bitrate": bitrate,
        "bpp": bpp,
        "psnr": psnr,
        "target_size": target_size,
        "lossless": lossless,
        "fast": fast,
        "effort": effort,
        "strip": tuple(what.value for what in strip or ()),
        "keep_gps": keep_gps,
        "device": device,
        "tune": None if tune is None else tune.value,
        "pixel_crc": pixel_crc,
        **limits,
    }
    task = Encoding(settings, force, not no_mtime, verify, sources.several)
    with into_tar(batch, output, force):
        counter = sources.counter(output)
        work_through(batch, "encoding", todo, task, workers=jobs, small=_is_small, ray=ray, count=counter)
    raise typer.Exit(batch.finish())


@dataclass(frozen=True)
class Encoding:
    """Encode files, in any process.

    Attributes:
        settings: fields of `pipeline.EncodeOptions`.
        force: replace existing outputs.
        stamp: copy the input's times.
        verify: decode each result and compare.
        mixed: whether there may be inputs of both media.
    """

    settings: Fields
    force: bool
    stamp: bool
    verify: bool
    mixed: bool

    def prepare(self) -> None:
        """Import the networks."""
        from vqcodec import pipeline

        pipeline.EncodeOptions(**self.settings)

    def __call__(self, jobs: Jobs, progress: Progress, threads: int | None) -> list[Outcome]:
        """Encode files, the symbols of several side by side."""
        from vqcodec import pipeline

        use_threads(threads)
        options = pipeline.EncodeOptions(**self.settings)
        outcomes = [Outcome(job.source.name) for job in jobs]
        begun: dict[int, Any] = {}
        for number, (job, outcome) in enumerate(zip(jobs, outcomes, strict=True)):
            with outcome.attempt(), self._of_this_file():
                refuse_existing(job, self.force)
                content = job.source.file or job.source.read()
                if _medium(job.source) == "set":
                    begun[number] = self._encode_set(content)
                elif len(jobs) == 1:
                    begun[number] = pipeline.encode_file(content, options, progress=progress)
                else:
                    begun[number] = pipeline.analyse_file(content, options)
        analysed = [n for n, file in begun.items() if not hasattr(file, "data")]
        started = time.perf_counter()
        coded = dict(
            zip(analysed, pipeline.code([begun[n] for n in analysed], fast=options.fast), strict=True)
        )
        share = (time.perf_counter() - started) / max(1, len(analysed))
        for number, file in begun.items():
            outcome = outcomes[number]
            with outcome.attempt():
                if number in coded:
                    outcome.seconds += share
                    file = pipeline.finish(file, coded[number], fast=options.fast)
                outcome.notes.append((f"{outcome.name}: coded in {outcome.seconds:.3f} s", 2))
                self._deliver(jobs[number], file, outcome)
        return outcomes

    def _encode_set(self, content: Path | bytes) -> "EncodedSet":
        from vqcodec import pipeline, weights

        weights.default("set", self.settings["tune"])
        targets = "quality", "bitrate", "bpp", "psnr", "target_size"
        if any(self.settings[name] is not None for name in targets):
            raise UsageError("a set of pictures is coded without loss", "leave out -q and targets")
        if self.settings["fast"] or self.settings["strip"] or self.settings["pixel_crc"]:
            raise UsageError(
                "a set of pictures has no faster prior, no metadata and no CRC of its pixels",
                "leave out --fast, --strip, --pixel-crc",
            )
        names = "model", "device", "max_pixels"
        return pipeline.encode_set(content, **{n: self.settings[n] for n in names if n in self.settings})

    @contextmanager
    def _of_this_file(self) -> Iterator[None]:
        """Among files of both media, an option for audio is an error of the images alone."""
        try:
            yield
        except UsageError as error:
            if not self.mixed:
                raise
            raise MediaError(error.message, error.hint) from error

    def _deliver(self, job: paths.Job, encoded: "Encoded | EncodedSet", outcome: Outcome) -> None:
        from vqcodec import pipeline

        extra: Fields = {}
        if self.verify:
            started = time.perf_counter()
            figure = "si_sdr_db" if encoded.geometry.kind == "audio" else "psnr_db"
            if encoded.geometry.kind == "set":
                verified = cast("EncodedSet", encoded).verify()
            else:
                verified = pipeline.verify(cast("Encoded", encoded))
            extra[figure] = round(float(verified), 3)
            seconds = time.perf_counter() - started
            outcome.notes.append((f"{job.source.name}: verified in {seconds:.3f} s", 2))
        deliver(job, lambda file: file.write(encoded.data), outcome, force=self.force, stamp=self.stamp)
        rates = {"bpp": encoded.bpp, "kbps": encoded.kbps}
        outcome.fields = {
            "output": shown(job.output),
            "model": encoded.model,
            **({} if encoded.quality is None else {"quality": plain(encoded.quality)}),
            **extent(encoded.geometry),
            "bytes_in": job.source.size or len(job.source.read()),
            "bytes_out": len(encoded.data),
            **{name: round(rate, 4) for name, rate in rates.items() if rate is not None},
            **extra,
        }


def _model_name(model: str | None, tune: options.Tune | None, source: paths.Input) -> str:
    from vqcodec import weights

    if model is not None:
        weights.locate(model)
    return model or weights.default(_medium(source), None if tune is None else tune.value)


def _is_small(job: paths.Job) -> bool:
    """Tell whether a file takes so little that others are coded with it."""
    suffix = job.source.below.suffix.lower()
    return 0 < job.source.size <= (SMALL_AUDIO if suffix in paths.AUDIO else SMALL_IMAGE)


def _medium(source: paths.Input) -> str:
    """Return the medium of an input, by its suffix, or by its first bytes if the suffix is unknown."""
    suffix = source.path.suffix.lower() if source.path is not None else ""
    if suffix in paths.IMAGES or suffix in paths.AUDIO:
        return "audio" if suffix in paths.AUDIO else "image"
    from vqcodec import media

    if source.path is not None and media.SET_NAMES.search(source.path.name):
        return "set"
    try:
        head = source.head(16)
        if head.startswith(media.SET_STARTS):
            return "set"
        return "audio" if media.sound_format(head) else "image"
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
