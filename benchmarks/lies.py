"""Bitstreams that lie: in their parts, changed field by field, and put together with right checksums."""

import random
import struct
import zlib
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

EDGES = [0, 1, 2, 3, 127, 128, 255, 256, 511, 512, 513, 1024, 1025, 2000, 4096, 16_000, 65_535, 2**20]
EDGES += [2**20 + 1, 2**24, 2**24 + 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**35 - 1]
TEXTS = [
    b"",
    b"{}",
    b"[" * 50_000,
    b'{"a":' * 50_000,
    b"1" * 9_999,
    b'{"a":"\\ud800"}',
    b'{"a":NaN}',
    b"\xff\xfe",
]
TEXTS += [b'{"title":"' + b"x" * 70_000 + b'"}', b'{"\\u0000":"a"}', b'{"":""}', b'{"a":"b","a":"c"}']
TEXTS += [
    b"II*\0\x08\0\0\0" + b"\xff" * 40,
    b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0",
    bytes(70_000),
    b"\x01\x40\x01\x40",
    b"\x01\x40\x01\x40" * 9_999,
    b"\x01\x00\x08" + bytes(range(60, 68)),
    b"\xff\xff\xff\xff\x0f\x40\x01\x40",
]


@dataclass
class File:
    """A bitstream in its parts, none of which need fit the others."""

    version: int
    kind: int
    flags: int
    model: bytes
    fingerprint: bytes
    size: list[int]
    gains: bytes | None
    settings: bytes
    source: bytes
    boxes: list[list[Any]]
    chunks: list[list[Any]]
    tail: bytes = b""
    lies: dict[str, int] = field(default_factory=dict)

    def write(self) -> bytes:
        """Put it together, with right checksums unless `lies` has "crc"."""
        head = bytearray(
            b"\x8fVQC" + bytes((self.version, self.kind, self.flags)) + self.model + self.fingerprint
        )
        for number in self.size:
            head += varint(number)
        if self.gains is not None:
            head += bytes((self.lies.get("channels", len(self.gains)) & 255,)) + self.gains
        if self.flags & 0x10:
            head += varint(self.lies.get("settings", len(self.settings))) + self.settings
        if self.flags & 0x20:
            head += varint(self.lies.get("source", len(self.source))) + self.source
        if self.flags & 0x40:
            head += varint(self.lies.get("boxes", len(self.boxes)))
            for number, stored, inflated, size in self.boxes:
                head += bytes((number,)) + varint(len(stored) if size is None else size) + varint(inflated)
                head += struct.pack("<I", zlib.crc32(stored))
        for prior, payload, size in self.chunks:
            head += bytes((prior,)) + varint(len(payload) if size is None else size)
            head += struct.pack("<I", zlib.crc32(payload))
        head += struct.pack("<I", zlib.crc32(head) ^ self.lies.get("crc", 0) & 0xFFFFFFFF)
        body = b"".join(stored for _, stored, _, _ in self.boxes)
        return bytes(head) + body + b"".join(payload for _, payload, _ in self.chunks) + self.tail


def varint(value: int) -> bytes:
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*digits, value))


def take_apart(data: bytes) -> File:
    """Undo `File.write`, of a sound file."""
    from vqcodec.bitstream import container, geometry, header

    head, at = header.read_header(data)
    boxes, chunks = [], []
    for box in head.boxes:
        boxes.append([box.number, data[at : at + box.size], box.inflated, None])
        at += box.size
    for chunk in container.parse(data).chunks:
        assert chunk is not None
        chunks.append([chunk.prior, chunk.payload, None])
    size = head.geometry
    is_audio = isinstance(size, geometry.AudioGeometry)
    start = header.MAGIC + bytes((header.VERSION, 2 if is_audio else 1))
    length = data[len(start) + 1]
    model = data[len(start) + 1 :][: 1 if length & 0x80 else 1 + length]
    numbers = [size.frames, size.rate] if is_audio else [size.width, size.height]
    return File(
        header.VERSION,
        start[-1],
        data[len(start)],
        model,
        head.fingerprint,
        numbers,
        size.gains if is_audio else None,
        head.settings,
        head.source.encode(),
        boxes,
        chunks,
    )


def blow(data: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Damage bytes at random: flip, set, cut, insert, delete, splice, repeat."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1) if rng.random() < 0.6 else min(rng.randrange(60), len(out))
        kind = rng.randrange(8)
        if kind <= 1 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2 and at < len(out):
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = rng.randbytes(rng.randint(1, 8))
        elif kind == 5:
            del out[at : at + rng.randint(1, 8)]
        elif kind == 6 and others:
            other = rng.choice(others)
            out[at:] = other[rng.randrange(len(other) + 1) :]
        elif kind == 7:
            out[at:at] = out[at : at + 8] * rng.randint(1, 20)
    return bytes(out)


def payload_of(payload: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Draw codes that no encoder writes: whole words as well as bytes, since coders read words."""
    kind = rng.randrange(7)
    if kind == 0:
        return b""
    if kind == 1:
        return rng.randbytes(4 * rng.randrange(40))
    if kind == 2:
        return bytes((rng.choice((0, 0xFF)),)) * (4 * rng.randrange(60))
    if kind == 3:
        return payload[: 4 * rng.randrange(len(payload) // 4 + 1)]
    if kind == 4:
        return payload + rng.randbytes(4 * rng.randint(1, 9))
    return blow(payload, rng, others)


def png_of(png: bytes, rng: random.Random) -> bytes:
    """Change a PNG and make its checksums right again."""
    out, at = bytearray(png[:8]), 8
    while at + 12 <= len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        if rng.random() < 0.4:
            data = blow(data, rng, [])
            if kind == b"IHDR":
                data = (data + bytes(13))[:13]
        if rng.random() < 0.05:
            kind = rng.choice(
                (b"IDAT", b"iCCP", b"zTXt", b"acTL", b"fdAT", b"PLTE", b"tRNS", b"IEND", b"IHDR")
            )
        copies = rng.choice((0, 1, 1, 1, 1, 1, 2))
        out += copies * (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )
        at += 12 + size
    return bytes(out)


def box_of(box: list[Any], rng: random.Random) -> list[Any]:
    number, stored, inflated, size = box
    plain = stored
    with suppress(zlib.error):
        plain = zlib.decompressobj(-15).decompress(stored) if inflated else stored
    kind = rng.randrange(6)
    if kind == 0:
        plain = rng.choice(TEXTS)
    elif kind == 1 and number == 2:
        plain = png_of(plain, rng)
    elif kind <= 3:
        plain = blow(plain, rng, TEXTS)
    elif kind == 4:
        return [rng.randrange(256), stored, inflated, size]
    else:
        return [
            number,
            stored,
            rng.choice((0, 1, len(stored), 2**24, 2**24 + 1)),
            rng.choice((None, 0, 2**32)),
        ]
    if rng.random() < 0.5 or number == 2:
        return [number, plain, 0, None]
    engine = zlib.compressobj(1, zlib.DEFLATED, -15)
    deflated = engine.compress(plain) + engine.flush()
    return (
        [number, deflated, len(plain) + rng.choice((0, 0, 0, 1, -1)), None]
        if plain
        else [number, plain, 0, None]
    )


def number_of(rng: random.Random) -> int:
    return rng.choice(EDGES) if rng.random() < 0.6 else int(2 ** (rng.random() * 14))


def lie(file: File, rng: random.Random, others: list[bytes]) -> File:
    """Change one to four fields."""
    file = replace(
        file, size=[*file.size], boxes=[[*b] for b in file.boxes], chunks=[[*c] for c in file.chunks], lies={}
    )
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(22)
        if kind <= 5 and file.chunks:
            chunk = rng.choice(file.chunks)
            chunk[1] = payload_of(chunk[1], rng, others)
        elif kind == 6 and file.chunks:
            rng.choice(file.chunks)[0] = rng.choice((0, 1, 2, 3, 4, 255))
        elif kind == 7 and file.chunks:
            rng.choice(file.chunks)[2] = number_of(rng)
        elif kind == 8:
            count = rng.choice((0, 1, 2, 3, 5, 9))
            file.chunks = [[*rng.choice(file.chunks)] for _ in range(count)] if file.chunks else []
        elif kind <= 10:
            file.size[rng.randrange(2)] = number_of(rng)
        elif kind == 11 and file.gains is not None:
            count = rng.choice((0, 1, 2, 3, 8, 255))
            file.gains = bytes(rng.choice((0, 1, 150, 192, 255)) for _ in range(count))
        elif kind == 12:
            file.settings, file.flags = (
                rng.randbytes(rng.choice((0, 1, 1, 1, 1, 2, 255, 256))),
                file.flags | 0x10,
            )
        elif kind == 13:
            file.source, file.flags = rng.choice((b"", b"PNG", b"\x1b[2J", b"x" * 256)), file.flags | 0x20
        elif kind == 14:
            file.flags ^= 1 << rng.randrange(8)
        elif kind == 15:
            file.version, file.kind = rng.choice(((1, 1), (1, 2), (0, 1), (2, 1), (1, 0), (1, 255)))
        elif kind == 16:
            file.model = rng.choice(
                (b"\x81", b"\x82", b"\x80", b"\xff", b"\x03a/b", b"\0", b"\x0bvqvae-image")
            )
        elif kind == 17:
            file.lies[rng.choice(("channels", "settings", "source", "boxes", "crc"))] = number_of(rng)
        elif kind == 18:
            file.tail = rng.randbytes(rng.randint(1, 9))
        elif file.boxes:
            at = rng.randrange(len(file.boxes))
            file.boxes[at] = box_of(file.boxes[at], rng)
        else:
            file.boxes, file.flags = (
                [[rng.choice((1, 2, 3, 4, 0x81, 0x82, 0x83)), rng.choice(TEXTS), 0, None]],
                (file.flags | 0x40),
            )
    return file
