"""`vqcodec info`: print the headers of bitstreams, without any network."""

import dataclasses
import json as jsonlib
from collections.abc import Iterator
from typing import Annotated

import typer
from vqcodec.bitstream import container
from vqcodec.bitstream.geometry import AUDIO_RATE
from vqcodec.bitstream.header import RESIDUAL_SETTINGS
from vqcodec.bitstream.quality import quality_of

from . import paths
from .batch import Batch, Fields, extent
from .command import command
from .console import Console, clock_text, size_text

EXAMPLES = """\b
Examples:
  vqcodec info photo.vqc song.vqc
  vqcodec info --check *.vqc                   exit code 1 if damaged
  vqcodec info --json photo.vqc | jq .bpp
"""
PRIORS = {
    container.RAW: "raw",
    container.STATIC: "static",
    container.LEARNED: "learned",
    container.PIXELS: "pixels",
    container.BITS_BACK: "bits back",
}
TILES = {container.WEBP: "WebP", container.LEARNED_PIXELS: "lossless-image"}
"""First byte of a tile of stored pixels -> what codes it."""


@command()
def info(
    console: Console,
    bitstreams: Annotated[
        list[str], typer.Argument(metavar="BITSTREAMS", help=".vqc files, folders (-r), or - for stdin.")
    ],
    check: Annotated[bool, typer.Option("--check", help="Verify all checksums; needs no network.")] = False,
    recursive: Annotated[bool, typer.Option("-r", "--recursive", help="Enter folders.")] = False,
) -> None:
    """Show the size or length, model, rate and metadata of .vqc files. Instant."""
    batch = Batch(console)
    found = paths.find(bitstreams, recursive=recursive, suffixes={paths.BITSTREAM}, what="bitstreams")
    batch.report_found(found, "not a bitstream")
    for source in found.inputs:

        def work(source: paths.Input = source) -> Fields:
            data = source.read() if check or source.is_stream else None
            if data is not None:
                header = container.read_info(data)
            else:
                assert source.path is not None
                with source.path.open("rb") as file:
                    header = container.read_info(file)
            fields = describe(header)
            if check and data is not None:
                fields["damage"] = container.check(data)
                fields["status"] = "damaged" if fields["damage"] else "ok"
            return fields

        record = batch.run(source, work)
        if record is not None:
            _print(console, record)
    raise typer.Exit(batch.finish(sizes=False))


def describe(header: container.Info) -> Fields:
    """Return the fields of the JSON record of one header, its geometry included."""
    fields: Fields = dataclasses.asdict(header)
    geometry = fields.pop("geometry")
    if "gains" in geometry:
        geometry["gains"] = geometry["gains"].hex()
    fields |= geometry | extent(header.geometry)
    fields["settings"] = header.settings.hex()
    if header.kind in ("image", "audio") and len(header.settings) in (1, RESIDUAL_SETTINGS):
        fields["quality"] = quality_of(header.settings[0])
    for name in ("priors", "bits_per_code"):
        fields[name] = {PRIORS.get(key, str(key)): value for key, value in fields[name].items()}
    for name in ("tiles", "tile_bytes"):
        fields[name] = {TILES.get(key, str(key)): value for key, value in fields[name].items()}
    fields |= {
        name: round(rate, 4) for name in ("bpp", "kbps") if (rate := getattr(header, name)) is not None
    }
    card = shipped_card(header.model, header.fingerprint)
    fields["shipped"] = card is not None
    if card is not None and "quality" in fields and (count := levels(card, fields["quality"])):
        fields["levels"] = count
    return fields


def shipped_card(model: str, fingerprint: str) -> Fields | None:
    """Return the card of weights that are shipped, which is read without numpy; None of others."""
    from importlib.resources import files

    try:
        card: Fields = jsonlib.loads((files("vqcodec.pretrained") / f"{model}.json").read_text("utf-8"))
        return card if card["fingerprint"] == fingerprint else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def levels(card: Fields, quality: float) -> int | None:
    """Return how many levels of codes a file has: one more at each quality of its model; None: no levels."""
    if "planes" not in card.get("learned", {}):
        return None
    return len([point for point in card["points"] if point["quality"] <= quality])


def _print(console: Console, record: Fields) -> None:
    """Print four lines, their first words in one column."""
    weights = record["fingerprint"][:6] + ("…, shipped" if record["shipped"] else "…")
    parts = [f"header {size_text(record['header_bytes'])}"]
    parts += [f"{name} {size_text(count)}" for name, count in record["box_bytes"].items()]
    parts.append(f"codes {size_text(record['code_bytes'])}")
    for name, key in (("residual", "residual_bytes"), ("stored pixels", "stored_bytes")):
        if record[key]:
            parts.append(f"{name} {size_text(record[key])}")
    if record["tiles"]:
        parts[-1] += f" ({', '.join(_tiles(record))})"
    what, rate, chunks = {"audio": _audio, "image": _image, "set": _set}[record["kind"]](record)
    several = len(record["priors"]) > 1
    quality = f"   quality {record['quality']:.3g}" if "quality" in record else ""
    if "levels" in record:
        quality += f" ({record['levels']} level{'s' * (record['levels'] > 1)})"
    bits = {name: f" {value:.2f} bits per code" for name, value in record["bits_per_code"].items()}
    priors = ", ".join(
        f"{name}{f' ({count})' if several else ''}{bits.get(name, '')}"
        for name, count in record["priors"].items()
    )
    lines = [
        (
            record["input"],
            f"bitstream {record['version']}   {record['model']} (weights {weights}){quality}",
        ),
        what,
        ("size", f"{size_text(record['total_bytes'])} = {rate}     {', '.join(parts)}"),
        (chunks[0], f"{chunks[1]}     prior {priors or 'none'}"),
    ]
    if record["file_bytes"] != record["total_bytes"]:
        cut = "truncated" if record["file_bytes"] < record["total_bytes"] else "too long"
        lines.append(("file", f"{cut}: {record['file_bytes']} of {record['total_bytes']} bytes"))
    if "damage" in record:
        lines.append(("check", "; ".join(record["damage"]) or "no damage"))
    width = max(len(name) for name, _ in lines)
    for name, text in lines:
        console.out(f"{name.ljust(width)}  {text}")


Line = tuple[str, str]


def _image(record: Fields) -> tuple[Line, str, Line]:
    """Return the line of the image, its rate, and the line of its chunks."""
    colors = "RGB" if record["channels"] == 3 else "gray"
    region = container.REGION
    return (
        ("image", f"{record['width']} x {record['height']} {colors}{_origin(record)}"),
        f"{record['bpp']:.2f} bpp",
        ("chunks", f"{record['chunks']} of at most {region} x {region} pixels"),
    )


def _tiles(record: Fields) -> Iterator[str]:
    """Yield what codes the tiles of stored pixels, how many they are, and where they are all, their rate."""
    for name, count in record["tiles"].items():
        rate = 8 * record["tile_bytes"][name] / (record["width"] * record["height"])
        bits = (
            f", {rate:.2f} bits per pixel" if len(record["tiles"]) == 1 and not record["code_bytes"] else ""
        )
        yield f"{count} {'tile' if count == 1 else 'tiles'} of {name}{bits}"


def _audio(record: Fields) -> tuple[Line, str, Line]:
    """Return the line of the audio, its rate, and the line of its chunks."""
    channels = {1: "mono", 2: "stereo"}.get(record["channels"], f"{record['channels']} channels")
    silent = bytes.fromhex(record["gains"]).count(0)
    if record["mid_side"] and silent == 1:
        same = "predicted from" if "stereo" in record["box_bytes"] else "the same as"
        channels += f", both {same} one coded channel"
    elif silent:
        channels += ", silent" if silent == record["channels"] else f", {silent} of them silent"
    text = f"{record['rate'] / 1000:g} kHz {channels} {clock_text(record['audio_seconds'])}{_origin(record)}"
    if record["rate"] > AUDIO_RATE:
        text += f"   nothing above {AUDIO_RATE / 2000:g} kHz is kept"
    seconds = container.SEGMENT * record["stride"] / AUDIO_RATE
    return (
        ("audio", text),
        f"{record['kbps']:.2f} kbit/s",
        ("segments", f"{record['chunks']} of at most {seconds:g} s"),
    )


def _set(record: Fields) -> tuple[Line, str, Line]:
    """Return the line of the pictures, their rate, and the line of their chunks."""
    size = f"{record['width']} x {record['height']}, 0 and {record['white']}"
    return (
        ("set", f"{record['count']:,} pictures of {size}{_origin(record)}"),
        f"{record['bpp']:.3f} bpp",
        ("chunks", f"{record['chunks']} of at most {container.PICTURES} pictures"),
    )


def _origin(record: Fields) -> str:
    return f"   from {record['source']}" if record["source"] else ""
