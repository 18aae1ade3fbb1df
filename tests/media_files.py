"""Image and audio files made by code, down to single bytes, for the tests of `media`."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import PIL.Image
import soundfile
from PIL import ImageCms
from vqcodec import media
from vqcodec.media import Audio

RNG = np.random.default_rng(3)
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = (
    b'<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    b'xmlns:exif="http://ns.adobe.com/exif/1.0/" xmlns:dji="http://www.dji.com/1.0/" '
    b'xmlns:tiff="http://ns.adobe.com/tiff/1.0/" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    b'exif:GPSLatitude="48,51.5N" dji:GpsLongitude=\'2.29\' tiff:Orientation="6" xmp:Rating="4" '
    b'exif:PixelXDimension="5" exif:PixelYDimension="7">'
    b"<exif:GPSAltitude>1111/1</exif:GPSAltitude><exif:GPSMapDatum/>"
    b'<xmp:Thumbnails note="a &gt; b"><rdf:Alt><rdf:li>THUMBNAIL</rdf:li></rdf:Alt></xmp:Thumbnails>'
    b'</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def photo(height: int = 11, width: int = 7, channels: int = 3) -> np.ndarray:
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


def pil(samples: np.ndarray) -> PIL.Image.Image:
    return PIL.Image.fromarray(samples[:, :, 0] if samples.shape[2] == 1 else samples)


def encoded(picture: PIL.Image.Image, format: str, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format=format, **options)
    return stream.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG by hand: `rows` without filter bytes, `extra` chunks before the pixels."""
    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[i * stride : (i + 1) * stride] for i in range(height))
    head = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(lines)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + body


def smooth() -> np.ndarray:
    y, x = np.mgrid[0:40, 0:48]
    return np.stack([3 * x + y, 2 * x + 2 * y, x + 3 * y], 2).astype(np.uint8)


def rounded(wide: np.ndarray, highest: int = 65535) -> np.ndarray:
    return np.floor(wide.astype(np.float64) * 255 / highest + 0.5).astype(np.uint8)


def exif_with_everything(orientation: int = 6, byte_order: str = "<", *, broken: bool = False) -> bytes:
    """IFD0 (make, orientation, Exif, GPS), Exif (dimensions, maker note), GPS, IFD1 with a thumbnail."""

    def entry(tag: int, kind: int, count: int, value: bytes | int) -> bytes:
        packed = struct.pack(byte_order + "I", value) if isinstance(value, int) else value.ljust(4, b"\0")
        return struct.pack(byte_order + "HHI", tag, kind, count) + packed

    def directory(entries: list[bytes], following: int) -> bytes:
        return (
            struct.pack(byte_order + "H", len(entries))
            + b"".join(entries)
            + struct.pack(byte_order + "I", following)
        )

    short = struct.pack(byte_order + "H", orientation)
    ifd0 = 8
    exif = ifd0 + 2 + 12 * 5 + 4
    gps = exif + 2 + 12 * 3 + 4
    ifd1 = gps + 2 + 12 + 4
    make, note, latitude, thumbnail = ifd1 + 2 + 24 + 4, ifd1 + 60, ifd1 + 100, ifd1 + 140
    blocks = {
        0: {"<": b"II*\0", ">": b"MM\0*"}[byte_order] + struct.pack(byte_order + "I", ifd0),
        ifd0: directory(
            [
                entry(271, 2, 9, make),
                entry(274, 3, 1, short),
                entry(282, 5, 1, 10**9) if broken else entry(284, 3, 1, b"\1"),
                entry(34665, 4, 1, exif),
                entry(34853, 4, 1, gps),
            ],
            ifd1,
        ),
        exif: directory(
            [entry(37500, 7, 20, note), entry(0xA002, 4, 1, 5), entry(0xA003, 4, 1, 7)],
            0,
        ),
        gps: directory([entry(2, 5, 3, latitude)], 0),
        ifd1: directory([entry(513, 4, 1, thumbnail), entry(514, 4, 1, 9)], 0),
        make: b"Leica Oy\0",
        note: b"MAKERNOTE-OF-20-BYTE",
        latitude: struct.pack(byte_order + "6I", 48, 1, 51, 1, 30, 7777),
        thumbnail: b"THUMBNAIL" + bytes(100),
    }
    out = bytearray(thumbnail + 109)
    for offset, block in blocks.items():
        out[offset : offset + len(block)] = block
    return bytes(out)


TAGS = {
    "title": "Stück Ω",
    "artist": "A. N. Other",
    "comment": "two\nlines",
    "copyright": "nobody",
    "album": "B",
    "date": "2001",
    "genre": "Jazz",
    "tracknumber": "3",
    "license": "CC0",
    "software": "press 1.0",
}


def tones(frames: int, channels: int = 1, rate: int = 16_000, hertz: float = 300) -> np.ndarray:
    """Sines of other pitch and loudness in each channel, float32 [frames, C]."""
    time = np.arange(frames)[:, None] / rate
    channel = np.arange(channels)
    return (0.3 / (1 + channel % 5) * np.sin(2 * np.pi * (hertz + 20 * channel) * time + 0.3)).astype("f4")


def written(samples: np.ndarray, rate: int, format: str, subtype: str, **tags: str) -> bytes:
    stream = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(stream, "w", rate, channels, subtype, format=format) as file:
        for name, text in tags.items():
            setattr(file, name, text)
        file.write(samples)
    return stream.getvalue()


def saved(audio: Audio, format: str) -> bytes:
    stream = io.BytesIO()
    media.write_audio(audio, stream, format)
    return stream.getvalue()


def wav(data: bytes, size: int | None = None, whole: int | None = None, rate: int = 16_000) -> bytes:
    """A WAV of 16 bits and one channel by hand, which may lie about its sizes."""
    size = len(data) if size is None else size
    whole = 36 + len(data) if whole is None else whole
    form = struct.pack("<HHIIHH", 1, 1, rate, 2 * rate, 2, 16)
    head = b"RIFF" + struct.pack("<I", whole) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", size) + data


def decibels(error: np.ndarray, signal: np.ndarray) -> float:
    return 10 * np.log10(np.square(error).mean() / np.square(signal).mean() + 1e-30)
