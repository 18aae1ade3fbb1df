"""`vqcodec placeholder`: a line of text for each image, to be shown while the image loads."""

import json as jsonlib
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated
from urllib.parse import quote

import typer
from vqcodec.errors import UsageError

from . import options, paths
from .batch import Batch, Fields, shown
from .command import command
from .console import Console

EXAMPLES = """\b
Examples:
  vqcodec placeholder photo.jpg                a line of text, at most 24 bytes as base64url
  vqcodec placeholder photos/ -r --format json > placeholders.jsonl
  vqcodec placeholder photo.jpg --format html  an <img> with the placeholder as its background
  vqcodec placeholder --decode RMEW7c8eNENGN_UPPNKo0EzvXmMtoIIO -o tiny.png --width 320
"""
OUTPUT = "placeholder.png"
IMAGES = (".png", ".jpg", ".webp", ".avif", ".bmp", ".tiff")


class Format(StrEnum):
    """What is printed for an image."""

    text = "text"
    json = "json"
    css = "css"
    html = "html"


@command()
def placeholder(
    console: Console,
    photos: Annotated[
        list[str] | None, typer.Argument(metavar="PHOTOS", help="Images, folders (-r), or - for stdin.")
    ] = None,
    size: Annotated[
        int, typer.Option("--size", min=12, max=64, metavar="12..64", help="Most bytes of a placeholder.")
    ] = 24,
    format: Annotated[
        Format,
        typer.Option(
            "--format",
            metavar="text|json|css|html",
            help="css and html carry an image of 32 pixels as a data URI.",
        ),
    ] = Format.text,
    decode: Annotated[
        str | None, typer.Option("--decode", metavar="TEXT", help="Draw a placeholder instead.")
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help=f"Image that --decode writes.  [default: {OUTPUT}]"
        ),
    ] = None,
    width: Annotated[
        int,
        typer.Option(
            "--width",
            min=1,
            max=4096,
            metavar="PX",
            help="Width of what --decode draws, in pixels; 4096 rows at most.",
        ),
    ] = 32,
    max_pixels: options.MaxPixels = None,
    recursive: options.Recursive = False,
    force: options.Force = False,
) -> None:
    """Print a placeholder of each image: a line of text that a page turns into a blurred image at once."""
    if (decode is None) == (not photos):
        raise UsageError("name images, or one text with --decode", "vqcodec placeholder photo.jpg")
    if decode is not None:
        _draw(console, decode, Path(output or OUTPUT), width, force)
        return
    if output is not None:
        raise UsageError("-o belongs to --decode", "placeholders are printed: > FILE")
    batch = Batch(console)
    found = paths.find(photos or [], recursive=recursive, suffixes=paths.IMAGES, what="images")
    batch.report_found(found, "not an image")
    from vqcodec import thumbnails

    limits = {} if max_pixels is None else {"max_pixels": max_pixels}
    for source in found.inputs:

        def work(source: paths.Input = source) -> Fields:
            image = thumbnails.read(source.file or source.read(), **limits)
            text = thumbnails.placeholder(image, size=size)
            fields: Fields = {
                "placeholder": text,
                "bytes": len(text) * 6 // 8,
                "width": image.width,
                "height": image.height,
            }
            if format in (Format.css, Format.html):
                fields |= {"data_uri": thumbnails.data_uri(text)}
                fields |= {"url": _url(source), "alpha": image.alpha is not None}
            return fields

        record = batch.run(source, work)
        if record is not None:
            console.out(_line(format, record))
    raise typer.Exit(batch.finish(sizes=False))


def _line(format: Format, record: Fields) -> str:
    """Return what is printed for an image."""
    if format is Format.json:
        names = ("input", "placeholder", "bytes", "width", "height")
        return jsonlib.dumps({name: record[name] for name in names})
    if format is Format.text:
        return str(record["placeholder"])
    style = (
        f"aspect-ratio: {record['width']} / {record['height']}; "
        f"background: center / 100% 100% no-repeat url({record['data_uri']})"
    )
    if format is Format.css:
        return f"{style};"
    size = f'width="{record["width"]}" height="{record["height"]}"'
    # What is transparent would keep the placeholder behind it.
    loaded = " onload=\"this.style.background='none'\"" if record["alpha"] else ""
    return f'<img src="{record["url"]}" {size} loading="lazy" alt="" style="{style}"{loaded}>'


def _url(source: paths.Input) -> str:
    """Return the address of an image, relative to the page; empty for stdin."""
    return "" if source.path is None or source.is_stream else quote(os.fsencode(source.path.as_posix()))


def _draw(console: Console, text: str, target: Path, width: int, force: bool) -> None:
    """Write the image of a placeholder."""
    if target.suffix.lower() not in IMAGES:
        raise UsageError(f"{target} is not a name of an image", f"end it with {', '.join(IMAGES)}")
    paths.check_free(target, force, "replace it with -f")
    from vqcodec import media, thumbnails

    image = thumbnails.placeholder_image(text, width=width)
    with paths.replacing(target, force=force) as file:
        media.write(image, file, target.suffix.lower().lstrip("."))
    console.record(type="placeholder", output=shown(target), width=image.width, height=image.height)
    console.note(f"{target}: {image.width} x {image.height}")
