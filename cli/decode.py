"""`vqcodec decode`: restore images and audio from bitstreams."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO

import typer
from vqcodec.errors import MediaError, UsageError, VqcodecError

from . import options, paths
from .batch import Batch, extent, shown, use_threads
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
from .remote import expand, is_special
from .schedule import work_through
from .sources import Sources
from .workers import Jobs, Progress

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
SMALL = 1 << 12
"""Size in bytes of bitstreams that are decoded by one thread."""

DEFAULTS = {"image": options.Format.png, "audio": options.Format.wav, "set": options.Format.npy}
KINDS = {"image": "an image", "audio": "audio", "set": "a set of pictures"}
FORMATS = {"image": "an image format", "audio": "an audio format", "set": "a format of sets"}


@command(progress=True)
def decode(
    console: Console,
    bitstreams: Annotated[
        list[str] | None,
        typer.Argument(metavar="BITSTREAMS", help=".vqc files, folders (-r), tars, or - for stdin."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="PATH",
            help="A file, a folder (a new one ends in /), a .tar, or - for stdout.  "
            "[default: NAME.decoded.png or .wav next to the input]",
        ),
    ] = None,
    format: Annotated[
        options.Format | None,
        typer.Option(
            "--format",
            metavar="png|jpg|webp|tiff|avif|bmp|wav|flac|ogg|opus|mp3|aiff|npy|npz|idx",
            help="Output format.  [default: by the suffix of -o, otherwise png, wav or npy, all lossless]",
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
    levels: Annotated[
        int | None,
        typer.Option(
            "--levels", min=1, help="Decode only the first levels of codes, this many.  [default: all]"
        ),
    ] = None,
    max_pixels: options.MaxPixels = None,
    max_seconds: options.MaxSeconds = None,
    recursive: options.Recursive = False,
    files_from: options.FilesFrom = None,
    null: options.Null = False,
    force: options.Force = False,
    skip_existing: options.SkipExisting = False,
    strip: options.StripWhat = None,
    no_mtime: options.NoMtime = False,
    dry_run: options.DryRun = False,
    device: options.Device = "auto",
    jobs: options.Jobs = None,
    ray: options.Ray = None,
) -> None:
    """Restore images and audio from .vqc files, with size, colour profile, sample rate, channels and tags.

    Images come out upright: their orientation was applied to the pixels when they were encoded.
    """
    check_overwriting(force, skip_existing)
    sources = Sources(
        expand(bitstreams or []),
        recursive=recursive,
        files_from=files_from,
        null=null,
        suffixes={paths.BITSTREAM},
        what="bitstreams",
    )
    output = None if test else sources.output(output, ".decoded")
    sources.check("./" if test else output)
    check_tar(output, force, skip_existing)
    check_ray(ray, output, device)
    batch = Batch(console)

    def report(found: paths.Found) -> None:
        batch.report_found(found, "not a bitstream")

    def suffix(source: paths.Input) -> str:
        return f".decoded.{(format or DEFAULTS[kind_of(source) or 'image']).value}"

    if test:
        todo = sources.inputs(report)
    else:
        todo = sources.jobs(output, suffix, report, batch.fail, known={paths.BITSTREAM})
    first, todo = first_of(todo)
    if not test:
        check_json(console, first)
    if first is not None and first.named and format is None:
        format_of(first.output)
    if skip_existing:
        first, todo = first_of(batch.skip_existing(todo))
    if dry_run:

        def plan(job: paths.Job) -> Fields:
            if (kind := kind_of(job.source)) is not None:
                fitting(format or format_of(job.output), kind)
            return {}

        raise typer.Exit(rehearse(batch, todo, force, plan))
    if first is None:
        raise typer.Exit(batch.finish())
    if model is not None:
        from vqcodec import weights

        # Before the first file: a wrong model or device fails the command, not each file.
        weights.load(model, device=device)
    limits: Fields = {"max_pixels": max_pixels, "max_seconds": max_seconds}
    settings: Fields = {
        "model": model,
        "decoder": decoder,
        "salvage": salvage,
        "preview": preview,
        "levels": levels,
        "strip": tuple(what.value for what in strip or ()),
        "device": device,
        **{name: limit for name, limit in limits.items() if limit is not None},
    }
    task = Decoding(settings, format, test, force, not no_mtime)
    verb = "testing" if test else "decoding"
    with into_tar(batch, output, force):
        counter = sources.counter(output)
        work_through(batch, verb, todo, task, workers=jobs, small=_is_small, ray=ray, count=counter)
    raise typer.Exit(batch.finish())


@dataclass(frozen=True)
class Decoding:
    """Decode bitstreams, in any process.

    Attributes:
        settings: arguments of `pipeline.decode`.
        format: of the outputs; None: by their suffix, or the default of the medium.
        test: write nothing.
        force: replace existing outputs.
        stamp: copy the input's times.
    """

    settings: Fields
    format: options.Format | None
    test: bool
    force: bool
    stamp: bool

    def prepare(self) -> None:
        """Import the networks."""
        from vqcodec import pipeline  # noqa: F401 (importing it is the point)

    def __call__(self, jobs: Jobs, progress: Progress, threads: int | None) -> list[Outcome]:
        """Decode bitstreams one by one."""
        outcomes = []
        for job in jobs:
            outcome = Outcome(job.source.name)
            with outcome.attempt():
                outcome.fields = self._decode(job, outcome, progress, threads)
            outcomes.append(outcome)
        return outcomes

    def _decode(self, job: paths.Job, outcome: Outcome, progress: Progress, threads: int | None) -> Fields:
        refuse_existing(job, self.force)
        data = job.source.read()
        from vqcodec.bitstream import container

        # A file that is not a bitstream fails before the networks are imported.
        header = container.read_info(data)
        target = fitting(self.format or format_of(job.output), header.kind)
        if isinstance(header.geometry, container.AudioGeometry) and not self.test:
            from vqcodec.media import AUDIO_FORMATS, audio_files

            # Before the networks run for minutes: whether the format can hold the audio.
            kind = AUDIO_FORMATS[f".{target.value}"]
            audio_files.check_fit(*kind, header.geometry.channels, header.geometry.rate)
        from vqcodec import media, pipeline

        use_threads(threads)
        started = time.perf_counter()
        decoded: media.Image | media.Audio | media.PictureSet
        if header.kind == "set":
            if any(self.settings[name] for name in ("preview", "decoder", "levels")):
                message = "a set of pictures has no preview, one decoder and one level"
                raise MediaError(message, "leave out the option")
            names = {"model", "salvage", "device", "max_pixels"}
            known = {name: value for name, value in self.settings.items() if name in names}
            decoded = pipeline.decode_set(data, **known)
        else:
            decoded = pipeline.decode(data, progress=progress, **self.settings)
        seconds = time.perf_counter() - started
        outcome.notes.append((f"{job.source.name}: decoded in {seconds:.3f} s", 2))
        fields: Fields = {"model": header.model, **extent(header.geometry), "bytes_in": len(data)}
        if self.settings["preview"] and isinstance(decoded, media.Image):
            fields |= {"width": decoded.width, "height": decoded.height}
        if self.test:
            return fields

        def write(file: BinaryIO) -> None:
            if isinstance(decoded, media.PictureSet):
                media.write_set(decoded, file, target.value)
            else:
                media.write(decoded, file, target.value)

        written = deliver(job, write, outcome, force=self.force, stamp=self.stamp)
        return fields | {"output": shown(job.output), "bytes_out": written}


def _is_small(job: paths.Job) -> bool:
    return 0 < job.source.size <= SMALL


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
            f"{format.value} is {FORMATS[format.kind]}, the content is {KINDS[kind]}",
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
