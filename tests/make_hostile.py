"""Writes tests/hostile: small files that attack the reader of .vqc. Run it after changing the format.

The header is put together by hand, without the code under test, so that it can lie with valid checksums.
"""

import struct
import zlib
from pathlib import Path

from vqcodec.errors import DamagedError, LimitError, NotABitstreamError, VersionError

FOLDER = Path(__file__).parent / "hostile"
PIXELS = b"\x80\x01\x80\x01"  # 128 x 128 as varints
CODES = bytes(range(64))


def crc(data):
    return struct.pack("<I", zlib.crc32(data))


PACKED = b"\x00\x40" + crc(CODES)


def build(
    *,
    version=1,
    kind=1,
    flags=0x0A,
    name=b"vqvae-image",
    size=PIXELS,
    extra=b"",
    chunks=None,
    header_crc=None,
    body=CODES,
):
    header = b"\x8fVQC" + bytes((version, kind, flags, len(name))) + name + bytes(range(8)) + size + extra
    header += PACKED if chunks is None else chunks
    return header + (header_crc or crc(header)) + body


def build_sound(
    *,
    flags=0x06,
    model=b"\x81",
    frames=16_000,
    rate=16_000,
    channels=1,
    gains=b"\xc0",
    extra=b"",
    chunks=None,
    body=CODES,
):
    """A second of sound, or whatever it is said to be; bit 3 of the flags is mid/side."""
    header = b"\x8fVQC" + bytes((1, 2, flags)) + model + bytes(range(8))
    header += varint(frames) + varint(rate) + bytes((channels,)) + gains + extra
    header += b"\x01\x40" + crc(CODES) if chunks is None else chunks
    return header + crc(header) + body


def varint(value):
    return bytes((value,)) if value < 128 else bytes((value & 127 | 128,)) + varint(value >> 7)


def box(number, size, inflated, stored):
    return bytes((number,)) + varint(size) + varint(inflated) + crc(stored)


def bomb(inflated, size=3_000_000):
    stored = deflated(bytes(size))
    entry = box(0x81, len(stored), inflated, stored)
    return build(flags=0x4A, extra=b"\x01" + entry, body=stored + CODES)


def deflated(data):
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    return engine.compress(data) + engine.flush()


def hostile():
    """Name -> (content, the error it must end in, a part of the message)."""
    good = build()
    return {
        "empty": (b"", NotABitstreamError, "empty file"),
        "png": (b"\x89PNG\r\n\x1a\n" + bytes(40), NotABitstreamError, "a PNG"),
        "magic-only": (b"\x8fVQC", DamagedError, "truncated"),
        "half-magic": (b"\x8fV", DamagedError, "truncated"),
        "cut-in-header": (good[:30], DamagedError, "truncated: 30 bytes"),
        "cut-in-chunk": (good[:-10], DamagedError, f"truncated: {len(good) - 10} of {len(good)} bytes"),
        "trailing": (good + b"!", DamagedError, "1 bytes after the end"),
        "version-0": (build(version=0), DamagedError, "version 0"),
        "version-3": (build(version=3), VersionError, "bitstream version 3, this program reads 1"),
        "kind-9": (build(kind=9), VersionError, "kind 9"),
        "tiles-all-empty": (
            build(flags=0x8A, chunks=PACKED + b"\0" + crc(b"")),
            DamagedError,
            "no stored pixels",
        ),
        "tiles-short": (build(flags=0x88, size=b"\x80\x80\x01" * 2), DamagedError, "truncated"),
        "tile-4-gigabytes": (
            build(flags=0x8A, chunks=PACKED + b"\xff\xff\xff\xff\x0f" + crc(b"")),
            DamagedError,
            "of 4294967",
        ),
        "model-path": (build(name=b"../../etc/passwd"), DamagedError, "model name"),
        "model-empty": (build(name=b""), DamagedError, "model name"),
        "model-escape": (build(name=b"a\x1b[2J"), DamagedError, "model name"),
        "source-escape": (build(flags=0x2A, extra=b"\x04\x1b[2J"), DamagedError, "source"),
        "source-empty": (build(flags=0x2A, extra=b"\x00"), DamagedError, "a field of 0 bytes"),
        "settings-huge": (build(flags=0x1A, extra=b"\xff\xff\xff\xff\x0f"), DamagedError, "4,294,967,295"),
        "zero-width": (build(size=b"\x00\x80\x01"), DamagedError, "0 x 128"),
        "900000-squared": (build(size=b"\xa0\xf7\x36" * 2), LimitError, "900,000 x 900,000"),
        "2-to-the-32-wide": (build(size=b"\x80\x80\x80\x80\x10\x01"), LimitError, "4,294,967,296 x 1 "),
        "too-many-chunks": (build(flags=0x08, size=b"\x83\x80\x04" * 2), LimitError, "65,539 x 65,539"),
        "many-chunks-short": (build(flags=0x08, size=b"\x80\x80\x04" * 2), DamagedError, "truncated"),
        "varint-not-minimal": (build(size=b"\x80\x81\x00\x80\x01"), DamagedError, "malformed number"),
        "varint-endless": (build(size=b"\xff" * 12), DamagedError, "malformed number"),
        "header-crc": (build(header_crc=b"\0\0\0\0"), DamagedError, "damaged header"),
        "chunk-crc": (build(body=CODES[::-1]), DamagedError, "damaged in chunk 1 of 1"),
        "chunk-4-gigabytes": (
            build(chunks=b"\x00\xff\xff\xff\xff\x0f" + crc(b"")),
            DamagedError,
            "of 42949673",
        ),
        "box-count-zero": (build(flags=0x4A, extra=b"\x00"), DamagedError, "no boxes"),
        "box-count-huge": (build(flags=0x4A, extra=b"\xff\xff\xff\xff\x0f"), DamagedError, "header"),
        "box-unknown": (
            build(flags=0x4A, extra=b"\x01" + box(0x05, 0, 0, b"")),
            VersionError,
            "box 0x05",
        ),
        "box-twice": (
            build(flags=0x4A, extra=b"\x02" + 2 * box(0x81, 0, 0, b"")),
            DamagedError,
            "out of order",
        ),
        "box-inflates-to-less": (
            build(flags=0x4A, extra=b"\x01" + box(0x81, 8, 4, CODES[:8]), body=CODES[:8] + CODES),
            DamagedError,
            "size of box exif",
        ),
        "alpha-deflated": (
            build(flags=0x4A, extra=b"\x01" + box(0x02, 4, 8, CODES[:4]), body=CODES[:4] + CODES),
            DamagedError,
            "size of box alpha",
        ),
        "box-not-deflate": (
            build(flags=0x4A, extra=b"\x01" + box(0x81, 4, 8, b"\xff" * 4), body=b"\xff" * 4 + CODES),
            DamagedError,
            "damaged in box exif",
        ),
        "bomb-over-limit": (bomb(2**24 + 1), LimitError, "exif of 16,777,217 bytes"),
        "bomb-understated": (bomb(4000), DamagedError, "damaged in box exif"),
        "bomb-overstated": (bomb(100_001, 100_000), DamagedError, "damaged in box exif"),
        "sound-of-no-length": (build_sound(frames=0), DamagedError, "1 channels of 0 samples"),
        "sound-too-long": (build_sound(frames=2**32 + 1), LimitError, "of 4,294,967,297 samples"),
        "sound-of-136-years": (build_sound(frames=2**32, rate=1), LimitError, "samples, 1 a second"),
        "sound-rate-0": (build_sound(rate=0), DamagedError, "16,000 samples, 0 a second"),
        "sound-rate-over-limit": (build_sound(rate=2**20 + 1), LimitError, "1,048,577 a second"),
        "sound-no-channels": (build_sound(channels=0, gains=b""), DamagedError, "0 channels"),
        "sound-mid-side-of-one": (build_sound(flags=0x0E), DamagedError, "1 channels"),
        "sound-mid-side-of-three": (
            build_sound(flags=0x0E, channels=3, gains=b"\0\0\0", chunks=b"", body=b""),
            DamagedError,
            "3 channels",
        ),
        "sound-gains-short": (build_sound(channels=255, chunks=b"", body=b""), DamagedError, "truncated"),
        "sound-chunks-short": (build_sound(frames=16_000 * 3600), DamagedError, "truncated"),
        "sound-many-chunks": (
            build_sound(frames=2**32, channels=9, gains=b"\xc0" * 9),
            LimitError,
            "9 channels of 4,294,967,296",
        ),
        "sound-chunk-of-silence": (build_sound(gains=b"\0"), DamagedError, "damaged header"),
        "sound-reserved-flag": (build_sound(flags=0x86), DamagedError, "reserved"),
        "model-number-unknown": (build_sound(model=b"\x85"), VersionError, "model number 5"),
        "model-number-0": (build_sound(model=b"\x80"), VersionError, "model number 0"),
        "model-number-spelt": (build_sound(model=b"\x0bvqvae-audio"), DamagedError, "model name"),
    }


def hostile_to_decoders():
    """The same of files that are sound as containers, and ask for more than a program should do."""
    silence = {"channels": 255, "gains": bytes(255), "chunks": b"", "body": b""}
    return {
        "silence-of-255-channels": (
            build_sound(frames=2**32, **silence),
            LimitError,
            "255 channels of 4,294,967,296 samples",
        ),
        "silence-of-136-years": (build_sound(frames=2**32, rate=1, **silence), LimitError, "1 a second"),
        "hour-of-255-channels": (
            build_sound(frames=8_000 * 3600, rate=8_000, **silence),
            LimitError,
            "28,800,000 samples",
        ),
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, (content, _, _) in (hostile() | hostile_to_decoders()).items():
        (FOLDER / f"{name}.vqc").write_bytes(content)
