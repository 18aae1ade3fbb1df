"""Declare the options that several commands share, and parse sizes and durations."""

import math
import re
from enum import StrEnum
from typing import Annotated

import typer


class Color(StrEnum):
    """Choose when messages are coloured."""

    auto = "auto"
    always = "always"
    never = "never"


class Strip(StrEnum):
    """Name metadata to leave out: exif, xmp and icc of an image, tags of an audio file."""

    exif = "exif"
    xmp = "xmp"
    icc = "icc"
    tags = "tags"
    all = "all"


class Tune(StrEnum):
    """Name what the default weights for images are trained for."""

    visual = "visual"
    psnr = "psnr"


class Format(StrEnum):
    """Name a format that `decode` writes; the values are also the suffixes."""

    png = "png"
    jpg = "jpg"
    webp = "webp"
    tiff = "tiff"
    avif = "avif"
    bmp = "bmp"
    wav = "wav"
    flac = "flac"
    ogg = "ogg"
    opus = "opus"
    mp3 = "mp3"
    aiff = "aiff"
    npy = "npy"
    npz = "npz"
    idx = "idx"

    @property
    def kind(self) -> str:
        """Return the medium of the format: "image", "audio" or "set"."""
        return "audio" if self in _AUDIO_FORMATS else "set" if self in _SET_FORMATS else "image"


_AUDIO_FORMATS = {Format.wav, Format.flac, Format.ogg, Format.opus, Format.mp3, Format.aiff}
_SET_FORMATS = {Format.npy, Format.npz, Format.idx}
DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(text: str) -> int:
    """Parse a size in bytes, as "40kB", "1MiB" or "500000": k is 1000 and Ki 1024, as in SI.

    Raises:
        typer.BadParameter: the text is not a size, or the size is less than a byte.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None or (match[3] and not match[2]):
        raise typer.BadParameter(f"'{text}' is not a size; write 500000, 40kB or 1MiB")
    size = int(float(match[1]) * (BINARY if match[3] else DECIMAL)[match[2]])
    if size < 1:
        raise typer.BadParameter(f"'{text}' is less than a byte")
    return size


def parse_pixels(text: str) -> int:
    """Parse a number of pixels, as "200000000", "200M" or "200MP".

    Raises:
        typer.BadParameter: the text is not a positive number of pixels.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmg]?)p?", text.strip().lower().replace("_", ""))
    pixels = int(float(match[1]) * DECIMAL[match[2]]) if match else 0
    if pixels < 1:
        raise typer.BadParameter(f"'{text}' is not a number of pixels; write 200000000 or 200M")
    return pixels


def parse_duration(text: str) -> float:
    """Parse a duration in seconds, as "90s", "20m", "6h" or "1h30m".

    A bare number is refused: some tools read it as seconds, others as minutes.

    Raises:
        typer.BadParameter: the text is not a duration, or the duration is zero.
    """
    word = text.strip().lower()
    if not re.fullmatch(r"(?:(?:\d+(?:\.\d*)?|\.\d+)\s*(?:s|sec|m|min|h|d)\s*)+", word):
        raise typer.BadParameter(f"'{text}' is not a duration; write 90s, 20m, 6h or 1h30m")
    parts = re.findall(r"(\d++(?:\.\d*+)?|\.\d++)\s*+(s|m|h|d)[a-z]*\s*", word)
    seconds = math.fsum(float(number) * SECONDS[unit] for number, unit in parts)
    if not seconds > 0:
        raise typer.BadParameter(f"'{text}' is not longer than zero")
    return seconds


def parse_device(text: str) -> str:
    """Check the form of a device's name; whether the device exists is known only when a network runs.

    Raises:
        typer.BadParameter: the text names no kind of device.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise typer.BadParameter(f"'{text}' is not one of auto, cpu, cuda, cuda:N, mps")
    return text


def show_version(wanted: bool) -> None:
    """Print the versions of the program and of its bitstream, and exit."""
    if wanted:
        from importlib.metadata import version

        from vqcodec.bitstream import container

        typer.echo(f"vqcodec {version('vqcodec')} (bitstream {container.VERSION})")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "-V",
        "--version",
        callback=show_version,
        is_eager=True,
        help="Print the versions of program and bitstream.",
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "-v",
        "--verbose",
        count=True,
        show_default=False,
        metavar="",
        help="Print a line per stage; -vv adds timings and tracebacks.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print errors only.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line on stdout, and nothing else there.")
]
ColorWhen = Annotated[
    Color,
    typer.Option(
        "--color",
        metavar="auto|always|never",
        help="When to colour messages; auto also obeys NO_COLOR and TERM=dumb.",
    ),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        parser=parse_device,
        metavar="auto|cpu|cuda[:N]|mps",
        help="Where networks run; any device decodes what another has encoded.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        "-j",
        "--jobs",
        min=1,
        metavar="N",
        help="Processes for many files, or CPU threads for few.  [default: all cores]",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="HOST:PORT|local",
        help="Work on a Ray cluster, whose machines share the disk or read addresses as s3://.",
    ),
]
FilesFrom = Annotated[
    str | None,
    typer.Option(
        "--files-from",
        metavar="FILE|-",
        help="Also take the files that a list names, one a line; their paths are mirrored under -o.",
    ),
]
Null = Annotated[bool, typer.Option("-0", "--null", help="Names in the list end in zero bytes.")]
Recursive = Annotated[
    bool, typer.Option("-r", "--recursive", help="Enter folders; their tree is mirrored under -o.")
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Replace existing files.")]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Skip inputs whose output exists.")]
StripWhat = Annotated[
    list[Strip] | None,
    typer.Option("--strip", metavar="exif|xmp|icc|tags|all", help="Metadata to leave out; repeatable."),
]
NoMtime = Annotated[
    bool, typer.Option("--no-mtime", help="Do not copy the input's modification time to the output.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="Never show a progress bar.")]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels", parser=parse_pixels, metavar="N", help="Refuse larger images.  [default: 179M]"
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(
        "--max-seconds",
        parser=parse_duration,
        metavar="DURATION",
        help="Refuse longer audio; each channel counts.  [default: 12h]",
    ),
]
Effort = Annotated[
    int,
    typer.Option(
        "--effort",
        min=0,
        max=3,
        metavar="0..3",
        help="Search effort: higher is slower, with better codes; for audio 2 or 3, of no use to vae-image.",
    ),
]
