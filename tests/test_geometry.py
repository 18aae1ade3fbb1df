from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_hostile import build_sound
from vqcodec.bitstream import container, geometry, header
from vqcodec.bitstream.binary import Cursor
from vqcodec.bitstream.container import Bitstream, Chunk
from vqcodec.bitstream.geometry import AUDIO_RATE, REGION, SEGMENT, AudioGeometry, ImageGeometry
from vqcodec.errors import DamagedError, LimitError, VersionError

MODERATE = settings(derandomize=True, deadline=None, database=None)
FINGERPRINT = bytes(range(8))

GAINS = st.lists(st.sampled_from([0, 1, 192, 255]), min_size=1, max_size=6).map(bytes)
RATES = st.integers(1, 2**20) | st.sampled_from([1, 8_000, 16_000, 44_100, 47_999, 48_000, 192_000, 2**20])


def covers_once(size: geometry.Geometry, grid: np.ndarray) -> None:
    for region in size.regions:
        part = region.part(size.stride)
        assert grid[part].shape == region.shape(size.stride) and grid[part].size > 0
        grid[part] += 1


@MODERATE
@given(st.integers(1, 20_000), st.integers(1, 20_000), st.sampled_from([1, 4, 128]))
def test_regions_cover_a_picture_once(width: int, height: int, stride: int) -> None:
    size = ImageGeometry(width, height, stride=stride * (8 if stride == 1 else 1))
    grid = np.zeros(size.grid(size.stride), np.int8)
    covers_once(size, grid)
    assert (grid == 1).all()
    assert len(list(size.regions)) == size.chunk_count
    assert grid.shape == (math.ceil(height / size.stride), math.ceil(width / size.stride))


@MODERATE
@given(st.integers(1, 3_000), st.integers(1, 3_000))
def test_a_region_is_the_same_samples_in_every_plane(width: int, height: int) -> None:
    """A finer plane has as many positions more; both end where the image ends."""
    size = ImageGeometry(width, height, stride=4)
    for stride in (1, 4, 8, 64):
        grid = np.zeros(size.grid(stride), np.int8)
        for region in size.regions:
            rows, columns = region.part(stride)
            assert rows.start * stride == region.samples[0].start
            assert columns.start * stride == region.samples[1].start
            grid[rows, columns] += 1
        assert (grid == 1).all()
    (whole,) = size.whole
    assert whole.shape(1) == (height, width)


@MODERATE
@given(st.integers(1, 60 * 16_000), st.integers(2_000, 192_000), GAINS, st.sampled_from([16, 64]))
def test_segments_cover_a_sound_once(frames: int, rate: int, gains: bytes, stride: int) -> None:
    size = AudioGeometry(frames, rate, gains, stride=stride)
    grid = np.zeros(size.grid(size.stride), np.int8)
    covers_once(size, grid)
    assert [bool(row.all()) for row in grid] == [gain > 0 for gain in gains], "silent channels have no chunks"
    assert grid.max() <= 1
    parts = [region.part(stride) for region in size.regions]
    assert len(parts) == size.chunk_count
    # Time goes first, so that a player needs no second half of a file for the first half of a sound.
    order = [(codes.start, channel) for channel, codes in parts]
    assert order == sorted(order)
    for _, codes in parts:
        assert codes.stop - codes.start == SEGMENT or codes.stop == grid.shape[1]


@MODERATE
@given(st.integers(1, 2**32), RATES)
def test_samples_cover_the_frames(frames: int, rate: int) -> None:
    size = AudioGeometry(frames, rate)
    samples, (channels, codes) = size.samples, size.grid(size.stride)
    assert (samples - 1) * rate < frames * AUDIO_RATE <= samples * rate
    assert channels == 1
    assert (codes - 1) * size.stride < samples <= codes * size.stride
    assert size.seconds == frames / rate


@pytest.mark.parametrize(
    ("frames", "rate", "samples", "codes", "chunks"),
    [
        (1, 16_000, 1, 1, 1),
        (64, 16_000, 64, 1, 1),
        (65, 16_000, 65, 2, 1),
        (1, 192_000, 1, 1, 1),
        (1, 8_000, 2, 1, 1),
        (47_999, 47_999, 16_000, 250, 1),
        (48_000, 47_999, 16_001, 251, 1),
        (8 * 16_000, 16_000, 128_000, 2000, 1),
        (8 * 16_000 + 1, 16_000, 128_001, 2001, 2),
    ],
)
def test_worked_examples(frames: int, rate: int, samples: int, codes: int, chunks: int) -> None:
    size = AudioGeometry(frames, rate)
    assert (size.samples, size.grid(64), size.chunk_count) == (samples, (1, codes), chunks)


@MODERATE
@given(
    st.integers(1, 2**25),
    st.integers(1_000, 2**20),
    GAINS,
    st.booleans(),
    st.integers(0, 7).map(lambda shift: 1 << shift),
)
def test_fields_are_read_as_written(
    frames: int, rate: int, gains: bytes, mid_side: bool, stride: int
) -> None:
    size = AudioGeometry(frames, rate, gains, mid_side and len(gains) == 2, stride)
    cursor = Cursor(size.write())
    assert AudioGeometry.read(cursor, stride, size.flag) == size
    assert cursor.at == len(cursor.data)
    if size.chunk_count < 5000:
        stream = Bitstream("m", FINGERPRINT, size, [Chunk(1, b"abc")] * size.chunk_count)
        assert container.parse(container.pack(stream)) == stream


@pytest.mark.parametrize(
    ("size", "error"),
    [
        (AudioGeometry(0, 16_000), DamagedError),
        (AudioGeometry(1, 0), DamagedError),
        (AudioGeometry(1, 16_000, b""), DamagedError),
        (AudioGeometry(1, 16_000, b"\1", True), DamagedError),
        (AudioGeometry(1, 16_000, b"\1\1\1", True), DamagedError),
        (AudioGeometry(2**32 + 1, 192_000, b"\0"), LimitError),
        (AudioGeometry(1, 2**20 + 1), LimitError),
        (AudioGeometry(2**32, 8_000), None),
        (AudioGeometry(2**32, 8_000, b"\1" * 16), LimitError),
        (AudioGeometry(2**32, 8_000, b"\0" * 255), None),
        (AudioGeometry(2**32, 2**20), None),
        (AudioGeometry(1, 1, b"\1\0", True), None),
        (ImageGeometry(0, 1), DamagedError),
        (ImageGeometry(2**24, 1, stride=128), None),
        (ImageGeometry(2**24 + 1, 1), LimitError),
    ],
)
def test_limits(size: geometry.Geometry, error: type[Exception] | None) -> None:
    if error is None:
        size.check()
        return
    with pytest.raises(error) as caught:
        size.check()
    assert str(caught.value).startswith(f"header claims {size.describe}")


def test_what_cannot_be_written() -> None:
    for size in (
        AudioGeometry(1, 16_000, b""),
        AudioGeometry(1, 16_000, bytes(256)),
        AudioGeometry(1, 16_000, b"\1", True),
        ImageGeometry(1, 1, 2),
    ):
        with pytest.raises(ValueError, match="channels"):
            size.write()


# the header


def small_sound(**change: object) -> Bitstream:
    """Six seconds of speech, at 2.18 kbit/s."""
    fields: dict[str, object] = {
        "model": "vqvae-audio",
        "fingerprint": FINGERPRINT,
        "geometry": AudioGeometry(6 * 16_000, 16_000),
        "chunks": [Chunk(container.STATIC, bytes(1636))],
        "source": "FLAC",
    }
    return Bitstream(**(fields | change))  # type: ignore[arg-type]


def test_overhead_of_a_small_sound() -> None:
    data = container.pack(small_sound())
    assert len(data) - 1636 == container.read_info(data).header_bytes <= 40
    longest = container.pack(small_sound(geometry=AudioGeometry(6 * 192_000, 192_000)))
    assert len(longest) - 1636 <= 40


def test_numbered_names() -> None:
    """A number is given once and for all: this list only grows."""
    assert header.NAMES == {1: "vqvae-audio", 2: "vae-image"}
    data = container.pack(small_sound())
    assert data[7] == 0x81 and b"vqvae" not in data
    assert container.parse(data) == small_sound()
    assert container.read_info(data).model == "vqvae-audio"
    other = container.pack(small_sound(model="vqvae-audio2"))
    assert other[7:20] == b"\x0cvqvae-audio2"
    assert container.parse(other).model == "vqvae-audio2"
    # Any kind of file may use them.
    picture = Bitstream("vqvae-audio", FINGERPRINT, ImageGeometry(8, 8), [Chunk(0, b"1234")])
    assert container.parse(container.pack(picture)) == picture


@pytest.mark.parametrize("number", [0, 3, 5, 127])
def test_numbers_of_later_programs(number: int) -> None:
    with pytest.raises(VersionError, match=f"model number {number}, unknown") as caught:
        container.parse(build_sound(model=bytes((0x80 | number,))))
    assert caught.value.hint == "upgrade vqcodec"


def test_a_numbered_name_has_one_form() -> None:
    with pytest.raises(DamagedError, match="model name"):
        container.parse(build_sound(model=b"\x0bvqvae-audio"))
    assert container.parse(build_sound(model=b"\x01m")).model == "m"
    with pytest.raises(DamagedError, match="model name"):
        container.parse(build_sound(model=b"\x41" + b"m" * 65))


def test_the_box_of_tags_is_optional_to_others() -> None:
    assert header.BOXES["tags"] == 0x83, "a reader that does not know it may pass over it"
    stream = small_sound(boxes={"tags": b'{"title": "x"}', "exif": b"MM\0*"})
    data = container.pack(stream)
    assert container.parse(data) == stream
    assert container.read_info(data).box_bytes == {"exif": 4, "tags": 14}


@given(st.integers(1, 400), st.integers(1, 400))
@settings(max_examples=30, deadline=None)
def test_regions_of_an_image_cover_the_grid_once(height: int, width: int) -> None:
    size = ImageGeometry(4 * width, 4 * height, stride=4)
    seen = np.zeros((height, width), np.uint8)
    regions = list(size.regions)
    for region in regions:
        seen[region.part(4)] += 1
        assert max(seen[region.part(4)].shape) <= REGION // 4 == 128
    assert (seen == 1).all() and len(regions) == size.chunk_count
