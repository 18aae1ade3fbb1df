"""The options that several commands share, and the one place where sizes and durations are read."""

import math
import re
from enum import StrEnum
from typing import Annotated

import typer


class Color(StrEnum):
    """When to colour messages."""

    auto = "auto"
    always = "always"
    never = "never"


class Strip(StrEnum):
    """Metadata that can be left out: of a picture exif, xmp and icc, of a sound its tags."""

    exif = "exif"
    xmp = "xmp"
    icc = "icc"
    tags = "tags"
    all = "all"


class Format(StrEnum):
    """What `decode` writes; the values are also the suffixes."""

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

    @property
    def kind(self) -> str:
        """Of what it is a format: "image" or "audio"."""
        return "audio" if self in _SOUND_FORMATS else "image"


_SOUND_FORMATS = {Format.wav, Format.flac, Format.ogg, Format.opus, Format.mp3, Format.aiff}
DECIMAL = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_size(text: str) -> int:
    """Bytes out of "40kB", "1MiB", "500000": k is 1000 and Ki 1024, as SI has it.

    Raises:
        typer.BadParameter: anything else, or nothing left of it.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmgt]?)(i?)b?", text.strip().lower())
    if match is None or (match[3] and not match[2]):
        raise typer.BadParameter(f"'{text}' is not a size; write 500000, 40kB or 1MiB")
    size = int(float(match[1]) * (BINARY if match[3] else DECIMAL)[match[2]])
    if size < 1:
        raise typer.BadParameter(f"'{text}' is less than a byte")
    return size


def parse_pixels(text: str) -> int:
    """Pixels out of "200000000", "200M" or "200MP".

    Raises:
        typer.BadParameter: anything else, or zero.
    """
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([kmg]?)p?", text.strip().lower().replace("_", ""))
    pixels = int(float(match[1]) * DECIMAL[match[2]]) if match else 0
    if pixels < 1:
        raise typer.BadParameter(f"'{text}' is not a number of pixels; write 200000000 or 200M")
    return pixels


def parse_duration(text: str) -> float:
    """Seconds out of "90s", "20m", "6h" or "1h30m".

    A bare number is refused: some tools read it as seconds, others as minutes.

    Raises:
        typer.BadParameter: anything else, or no time at all.
    """
    word = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)\s*(s|m|h|d)[a-z]*\s*", word)
    if not re.fullmatch(r"(?:(?:\d+(?:\.\d*)?|\.\d+)\s*(?:s|sec|m|min|h|d)\s*)+", word):
        raise typer.BadParameter(f"'{text}' is not a duration; write 90s, 20m, 6h or 1h30m")
    seconds = math.fsum(float(number) * SECONDS[unit] for number, unit in parts)
    if not seconds > 0:
        raise typer.BadParameter(f"'{text}' is no time at all")
    return seconds


def parse_device(text: str) -> str:
    """A device's name as given; whether it is there is known only once a network is about to run.

    Raises:
        typer.BadParameter: another word.
    """
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", text):
        raise typer.BadParameter(f"'{text}' is not one of auto, cpu, cuda, cuda:N, mps")
    return text


def show_version(wanted: bool) -> None:
    """Print the program's version and the bitstream's, and leave."""
    if wanted:
        from importlib.metadata import version

        from vqcodec.bitstream import container

        typer.echo(f"vqcodec {version('vqcodec')} (bitstream {container.VERSION})")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "-V", "--version", callback=show_version, is_eager=True, help="Show program and bitstream version."
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
        help="A line per stage; -vv timings, tracebacks.",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Errors only.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object per line on stdout, nothing else there.")]
ColorWhen = Annotated[
    Color,
    typer.Option("--color", metavar="auto|always|never", help="NO_COLOR and TERM=dumb also turn it off."),
]
Device = Annotated[
    str,
    typer.Option(
        "--device",
        parser=parse_device,
        metavar="auto|cpu|cuda[:N]|mps",
        help="Where networks run; codes never depend on it.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option("-j", "--jobs", min=1, metavar="N", help="CPU threads.  [default: all cores]"),
]
Recursive = Annotated[
    bool, typer.Option("-r", "--recursive", help="Enter folders; mirror the tree under -o.")
]
Force = Annotated[bool, typer.Option("-f", "--force", help="Replace existing outputs.")]
SkipExisting = Annotated[bool, typer.Option("--skip-existing", help="Pass over inputs whose output exists.")]
StripWhat = Annotated[
    list[Strip] | None,
    typer.Option("--strip", metavar="exif|xmp|icc|tags|all", help="Metadata to leave out; repeatable."),
]
NoMtime = Annotated[bool, typer.Option("--no-mtime", help="Give outputs the present time, not the input's.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress bar, not on a terminal either.")]
MaxPixels = Annotated[
    int | None,
    typer.Option(
        "--max-pixels", parser=parse_pixels, metavar="N", help="Refuse larger pictures.  [default: 179M]"
    ),
]
MaxSeconds = Annotated[
    float | None,
    typer.Option(
        "--max-seconds",
        parser=parse_duration,
        metavar="DURATION",
        help="Refuse longer sounds; each channel counts.  [default: 12h]",
    ),
]
Effort = Annotated[
    int,
    typer.Option(
        "--effort",
        min=0,
        max=3,
        metavar="0..3",
        help="Search for better codes; slower. Sounds: 2 or 3. No gain with vae-image.",
    ),
]
