import io
import subprocess
import sys
import tracemalloc
import zlib
from dataclasses import replace

import pytest
from fuzz import mutate
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from make_hostile import FOLDER, build, build_sound, hostile, hostile_to_decoders
from vqcodec.bitstream import container, header
from vqcodec.bitstream.binary import deflate
from vqcodec.bitstream.container import AudioGeometry, Bitstream, Chunk, ImageGeometry, Part
from vqcodec.bitstream.header import BoxEntry
from vqcodec.errors import BitstreamError, DamagedError, LimitError, VersionError

FINGERPRINT = bytes(range(8))
SMALL = Bitstream(
    model="vqvae-image",
    fingerprint=FINGERPRINT,
    geometry=ImageGeometry(128, 128, 3, 4),
    chunks=[Chunk(container.STATIC, bytes(range(100)) * 7)],
    source="PNG",
)
FULL = Bitstream(
    model="vqvae-image",
    fingerprint=FINGERPRINT,
    geometry=ImageGeometry(1025, 600, 1, 4),
    chunks=[Chunk(n % 2, bytes((n, 1, 2)) * (n + 1)) for n in range(6)],
    settings=b"\x03",
    source="JPEG",
    boxes={"xmp": b"<x>" * 50, "icc": bytes(range(40)), "exif": b"MM\0*", "alpha": b"alpha" * 30},
)
SOUND = Bitstream(
    model="vqvae-audio",
    fingerprint=FINGERPRINT,
    geometry=AudioGeometry(47_999 * 20, 47_999, b"\xb0\0", mid_side=True),
    chunks=[Chunk(n % 2, bytes((n, 1, 2)) * (n + 1)) for n in range(3)],
    source="FLAC",
    boxes={"tags": b'{"title": "' + b"la" * 40 + b'"}'},
)
MODERATE = settings(derandomize=True, deadline=None, database=None)


def salvaged(data):
    """What salvage takes, and what it passes over in words; it warns of nothing itself."""
    stream = container.parse(data, salvage=True)
    return stream, stream.damage


def test_layout_is_the_one_described():
    """The hand-made file of make_hostile, which knows FORMAT.md only, is what pack writes."""
    stream = Bitstream(
        "vqvae-image", FINGERPRINT, ImageGeometry(128, 128, 3, 4), [Chunk(0, bytes(range(64)))]
    )
    assert container.pack(stream) == build()
    timeline = AudioGeometry(16_000, 16_000)
    stream = Bitstream("vqvae-audio", FINGERPRINT, timeline, [Chunk(1, bytes(range(64)))])
    assert container.pack(stream) == build_sound()


@pytest.mark.parametrize("source", ["", "PNG", "JPEG", "WEBP", "TIFF"])
def test_overhead_of_a_small_picture(source):
    payload = SMALL.chunks[0].payload
    stream = Bitstream("vqvae-image", FINGERPRINT, SMALL.geometry, SMALL.chunks, source=source)
    data = container.pack(stream)
    assert len(data) - len(payload) <= 48
    assert container.read_info(data).header_bytes == len(data) - len(payload)


def test_geometry_follows_from_the_size():
    assert FULL.geometry.grid(4) == (150, 257)
    assert FULL.geometry.chunk_count == 6
    assert ImageGeometry(1, 1).chunk_count == 1
    assert ImageGeometry(513, 512).chunk_count == 2


@MODERATE
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.sampled_from([1, 3]),
    st.sampled_from([1, 2, 4, 8, 128]),
    st.dictionaries(st.sampled_from(["icc", "exif", "xmp", "alpha"]), st.binary(max_size=300)),
    st.binary(max_size=255),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=255),
    st.randoms(use_true_random=False),
)
def test_round_trip(width, height, channels, stride, boxes, model_settings, source, random):
    geometry = ImageGeometry(width, height, channels, stride)
    chunks = [
        Chunk(random.randrange(256), random.randbytes(random.randrange(300)))
        for _ in range(geometry.chunk_count)
    ]
    residuals = [Part(chunk.payload[::-1]) for chunk in chunks] if len(model_settings) == 3 else []
    stream = Bitstream("m", FINGERPRINT, geometry, chunks, model_settings, source, boxes, residuals)
    data = container.pack(stream)
    assert container.parse(data) == stream
    assert container.check(data) == []
    info = container.read_info(data)
    assert info.total_bytes == info.file_bytes == len(data)
    parts = info.code_bytes + info.residual_bytes + info.stored_bytes
    assert info.header_bytes + sum(info.box_bytes.values()) + parts == len(data)
    assert info == container.read_info(io.BytesIO(data))


def test_info():
    data = container.pack(FULL)
    info = container.read_info(data)
    assert (info.version, info.kind, info.model, info.source) == (1, "image", "vqvae-image", "JPEG")
    assert info.geometry == FULL.geometry == ImageGeometry(1025, 600, 1, 4)
    assert (info.fingerprint, info.settings) == ("0001020304050607", b"\x03")
    assert (info.chunks, info.priors) == (6, {0: 3, 1: 3})
    assert info.code_bytes == 3 * 21
    assert info.box_bytes["icc"] == 40
    assert info.box_bytes["xmp"] < 20, "what deflates well is deflated"
    assert info.bpp == 8 * len(data) / (1025 * 600)


def test_info_of_a_sound():
    data = container.pack(SOUND)
    info = container.read_info(data)
    assert (info.kind, info.model, info.source) == ("audio", "vqvae-audio", "FLAC")
    assert info.geometry == SOUND.geometry
    assert (info.chunks, info.priors, info.code_bytes) == (3, {0: 2, 1: 1}, 18)
    assert 0 < info.box_bytes["tags"] < 40, "what deflates well is deflated"
    assert info.bpp is None and info.kbps == pytest.approx(8 * len(data) / 20 / 1000)
    assert container.read_info(container.pack(FULL)).kbps is None
    assert (SOUND.kind, FULL.kind) == ("audio", "image")


def test_info_needs_the_header_alone():
    data = container.pack(FULL)
    info = container.read_info(data)
    cut = container.read_info(data[: info.header_bytes])
    assert (cut.total_bytes, cut.file_bytes) == (len(data), info.header_bytes)
    assert container.read_info(io.BytesIO(data + bytes(5 * 2**20))).file_bytes == len(data) + 5 * 2**20


def test_container_imports_neither_numpy_nor_torch():
    code = "import sys, vqcodec.bitstream.container; sys.exit(bool({'numpy', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_salvage_restores_what_is_undamaged():
    data = bytearray(container.pack(FULL))
    at = container.read_info(bytes(data)).header_bytes
    data[at] ^= 1  # first box: icc
    data[-22] ^= 1  # last byte but 21: chunk 5, before chunk 6 of 18 bytes
    with pytest.raises(DamagedError, match="damaged in box icc"):
        container.parse(bytes(data))
    stream, messages = salvaged(bytes(data))
    assert messages == container.check(bytes(data)) == ["damaged in box icc", "damaged in chunk 5 of 6"]
    assert intact(stream) == [*FULL.chunks[:4], None, FULL.chunks[5]]
    assert stream.boxes == {name: box for name, box in FULL.boxes.items() if name != "icc"}


def test_salvage_of_a_cut_file_and_of_a_longer_one():
    data = container.pack(FULL)
    cut, longer = data[:-20], data + b"tail"
    with pytest.raises(DamagedError, match=f"truncated: {len(cut)} of {len(data)} bytes"):
        container.parse(cut)
    with pytest.raises(DamagedError, match="4 bytes after the end"):
        container.parse(longer)
    stream, messages = salvaged(cut)
    assert intact(stream) == [*FULL.chunks[:4], None, None]
    assert messages[0].startswith("truncated")
    assert salvaged(longer)[0] == FULL


def test_swapped_chunks_are_noticed():
    stream = Bitstream("m", FINGERPRINT, ImageGeometry(1024, 512), [Chunk(0, b"abcd"), Chunk(0, b"efgh")])
    data = container.pack(stream)
    with pytest.raises(DamagedError, match="damaged in chunk 1 of 2"):
        container.parse(data[:-8] + data[-4:] + data[-8:-4])


def test_optional_boxes_of_the_future_are_skipped():
    entry = bytes((1, 0x90, 3, 0)) + zlib.crc32(b"new").to_bytes(4, "little")
    data = build(flags=0x4A, extra=entry, body=b"new" + bytes(range(64)))
    assert container.parse(data).boxes == {}
    assert container.read_info(data).box_bytes == {"0x90": 3}
    assert container.check(data.replace(b"new", b"old")) == ["damaged in box 0x90"]


@pytest.mark.parametrize(
    "data",
    [container.pack(stream) for stream in (SMALL, FULL, SOUND)],
    ids=["small", "full", "sound"],
)
def test_every_flipped_bit_is_detected(data):
    header_bytes = container.read_info(data).header_bytes
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError):
            container.parse(bytes(broken))
        if bit // 8 >= header_bytes:
            assert len(container.check(bytes(broken))) == 1, "only the box or chunk that was hit is lost"


@pytest.mark.parametrize("stream", [FULL, SOUND], ids=["picture", "sound"])
def test_every_truncation_is_detected(stream):
    data = container.pack(stream)
    for size in range(len(data)):
        with pytest.raises(BitstreamError):
            container.parse(data[:size])


@pytest.mark.parametrize("name", hostile())
def test_hostile_files(name):
    content, error, message = hostile()[name]
    # What deflate makes of a bomb may differ between builds of zlib; the file is what counts.
    for data in (content, (FOLDER / f"{name}.vqc").read_bytes()):
        with pytest.raises(error, match=".*") as caught:
            container.parse(data)
        assert type(caught.value) is error
        assert message in caught.value.message


def test_hostile_folder_is_complete():
    assert {path.stem for path in FOLDER.glob("*.vqc")} == set(hostile() | hostile_to_decoders())


def test_hostile_files_take_little_memory():
    files = hostile()
    tracemalloc.start()
    try:
        for content, error, _ in files.values():
            with pytest.raises(error):
                container.parse(content)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2**20


def intact(stream):
    """The chunks of a stream, None for damaged ones."""
    return [chunk if chunk.intact else None for chunk in stream.chunks]


def test_deflated_boxes_are_smaller_than_what_they_hold():
    """Stored as they are, they would be as small: one content, one file."""
    contents = (bytes(range(n)) + bytes(n // 9) for n in range(1, 250))
    content = next(c for c in contents if len(deflate(c)) == len(c))
    head, _ = header.read_header(container.pack(SMALL))
    stored = deflate(content)
    for inflated, right in ((len(content), False), (len(content) + 1, True)):
        box = BoxEntry(header.BOXES["icc"], len(stored), inflated, zlib.crc32(stored))
        data = header.write_header(replace(head, boxes=[box])) + stored + SMALL.chunks[0].payload
        with pytest.raises(DamagedError, match="damaged in box icc" if right else "size of box icc"):
            container.parse(data)


def change(**fields):
    return Bitstream(**({name: getattr(SMALL, name) for name in SMALL.__dataclass_fields__} | fields))


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"model": "../x"}, ValueError),
        ({"model": ""}, ValueError),
        ({"model": "m" * 65}, ValueError),
        ({"source": "a\nb"}, ValueError),
        ({"fingerprint": b"short"}, ValueError),
        ({"settings": bytes(256)}, ValueError),
        ({"boxes": {"gps": b""}}, ValueError),
        ({"chunks": []}, ValueError),
        ({"chunks": [Chunk(0, b"", intact=False)]}, ValueError),
        ({"chunks": [Chunk(256, b"")]}, ValueError),
        ({"geometry": ImageGeometry(128, 128, 2)}, ValueError),
        ({"geometry": ImageGeometry(128, 128, 3, 3)}, ValueError),
        ({"geometry": ImageGeometry(2**24 + 1, 1)}, LimitError),
        ({"geometry": ImageGeometry(2**17, 2**17, 3, 64)}, LimitError),
        ({"boxes": {"exif": bytes(2**24 + 1)}}, LimitError),
    ],
)
def test_pack_refuses_what_parse_would(fields, error):
    with pytest.raises(error):
        container.pack(change(**fields))


def test_errors_carry_remedies():
    data = container.pack(SMALL)
    with pytest.raises(VersionError) as caught:
        container.parse(data[:4] + b"\x03" + data[5:])
    assert caught.value.hint == "upgrade vqcodec"
    with pytest.raises(DamagedError) as caught:
        container.parse(data[:-1])
    assert caught.value.hint == "decode the undamaged part with --salvage"


ORIGINALS = [SMALL, FULL, SOUND]
FILES = [container.pack(stream) for stream in ORIGINALS]


@st.composite
def mutated(draw):
    return mutate(draw(st.sampled_from(FILES)), draw, FILES)


def outcome(data):
    """What parse makes of data, with and without salvage; anything but a BitstreamError comes through."""
    tracemalloc.start()
    try:
        try:
            container.read_info(data)
        except BitstreamError:
            with pytest.raises(BitstreamError):
                container.parse(data, salvage=True)
            with pytest.raises(BitstreamError):
                container.parse(data)
            return None, None
        stream, messages = salvaged(data)
        assert messages == container.check(data)
        if messages:
            with pytest.raises(DamagedError):
                container.parse(data)
            return None, stream
        return container.parse(data), stream
    finally:
        assert tracemalloc.get_traced_memory()[1] < 2**20
        tracemalloc.stop()


@settings(MODERATE, max_examples=2000, suppress_health_check=list(HealthCheck))
@given(mutated())
def test_mutations_end_in_an_original_or_in_a_bitstream_error(data):
    stream, remains = outcome(data)
    assert stream is None or stream in ORIGINALS
    if remains is not None:
        original = next(s for s in ORIGINALS if s.geometry == remains.geometry)
        assert all(a in (None, b) for a, b in zip(intact(remains), original.chunks, strict=True))
        assert remains.boxes.items() <= original.boxes.items()


@settings(MODERATE, max_examples=600, suppress_health_check=list(HealthCheck))
@given(mutated(), st.sampled_from(FILES), st.integers(-2, 8))
def test_mutations_with_a_valid_header_checksum(data, file, shift):
    """Past the header's own checksum a file may say anything; what is read is then written again alike."""
    size = container.read_info(file).header_bytes + shift
    data = data[: size - 4] + zlib.crc32(data[: size - 4]).to_bytes(4, "little") + data[size:]
    stream, _ = outcome(data)
    assert stream is None or container.parse(container.pack(stream)) == stream


@pytest.mark.parametrize("size", [1, 255])
def test_fields_as_long_as_the_format_allows(size):
    stream = Bitstream("m", FINGERPRINT, SMALL.geometry, SMALL.chunks, bytes(size), "x" * size)
    assert container.parse(container.pack(stream)) == stream
