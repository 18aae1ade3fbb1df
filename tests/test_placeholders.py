"""Placeholders: known answers, round trips, damage, and what their limits promise."""

from __future__ import annotations

import base64
import dataclasses
import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import vqcodec
from conftest import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageCms
from vqcodec import media, thumbnails
from vqcodec.errors import DamagedError, MediaError, ModelError, UsageError, VersionError
from vqcodec.media.color import Colorimetry
from vqcodec.metrics.image import psnr
from vqcodec.placeholders import fitting, layout, rangecoder, tables, text
from vqcodec.placeholders.decoding import Placeholder, decode, render
from vqcodec.placeholders.encoding import aspect_index

SEARCHER = thumbnails.searcher()
TABLES = SEARCHER.tables
PARROTS = Path(__file__).parents[1] / "docs" / "parrots.jpg"

GOLDEN = "rMUOBZLWQTAjcAbReaGZm3-4ljeFGVtV"
"""Of the sample photograph. A placeholder that stands in a page must decode to the same for ever."""

GOLDEN_PIXELS = [[70, 90, 51], [194, 204, 169], [107, 95, 75], [153, 136, 128]]
"""First row of GOLDEN at 4 x 3 pixels."""


# known answers


def test_the_sample_photograph() -> None:
    """The text may change with Pillow's filter; what it decodes to may not."""
    found = decode(GOLDEN, TABLES)
    assert (found.aspect, found.quality, len(found.symbols)) == (7, 9, 188)
    assert vqcodec.placeholder_image(GOLDEN, width=4).samples[0].tolist() == GOLDEN_PIXELS
    again = vqcodec.placeholder_image(vqcodec.placeholder(PARROTS)).samples
    assert psnr(again, vqcodec.placeholder_image(GOLDEN).samples) > 35


def test_the_sample_photograph_is_recognised() -> None:
    """Far from these figures something is broken."""
    small = thumbnails.thumbnail(media.read_image(PARROTS))
    reached = [psnr(small, drawn(SEARCHER.encode(small, 7, size))) for size in (5, 15, 24, 64)]
    assert reached == sorted(reached)
    assert reached[0] > 14 and reached[1] > 16 and reached[3] > 19


def drawn(placeholder: str) -> np.ndarray:
    """Pixels of a placeholder at 32x32."""
    return render(decode(placeholder, TABLES), TABLES, 32, 32)


def test_checksum_is_the_remainder_of_a_division() -> None:
    """By long division of polynomials over two elements, with six ones in front and six zeros behind."""
    for number, payload in ((0, b""), (0, b"\0"), (1, b"placeholder"), (3, bytes(range(60)))):
        bits = [int(b) for b in format(number, "02b") + "".join(format(byte, "08b") for byte in payload)]
        bits = [b ^ (n < 6) for n, b in enumerate(bits + [0] * 6)]
        for n in range(len(bits) - 6):
            if bits[n]:
                for offset in (0, 5, 6):  # x^6 + x + 1
                    bits[n + offset] ^= 1
        remainder = int("".join(str(int(b)) for b in bits[-6:]), 2)
        assert text.checksum(number, payload) == remainder


@pytest.mark.parametrize("length", [1, 32, 320])
def test_cosines_do_not_hang_on_the_last_bit_of_a_library(length: int) -> None:
    """No value is so near to a half that another cosine could round it elsewhere."""
    u, x = np.arange(16)[:, None], np.arange(length)
    scaled = np.cos(np.pi * u * (2 * x + 1) / (2 * length)) * 2**14
    assert np.abs(scaled - np.floor(scaled) - 0.5).min() > 1e-6
    steps = [2 ** ((tables.FINEST + q) / 4) * 16 for q in range(tables.QUALITIES)]
    assert min(abs(s - np.floor(s) - 0.5) for s in steps) > 1e-6


# transform


def test_integer_synthesis_is_the_inverse_transform() -> None:
    """Of low-frequency thumbnails, within the rounding of an integer transform."""
    rng = np.random.default_rng(0)
    vectors = rng.normal(0, 60, (5, layout.SIZE))
    exact = (vectors @ layout.patterns()).reshape(5, 3, 32, 32).transpose(0, 2, 3, 1) + 127.5
    for vector, pixels in zip(vectors, exact, strict=True):
        whole = np.rint(vector * layout.units()).astype(np.int64)
        assert np.abs(layout.synthesise(whole, 32, 32) - np.clip(pixels, 0, 255)).max() < 1.2


def test_analysis_is_the_projection_on_orthonormal_patterns() -> None:
    patterns = layout.patterns()
    assert np.allclose(patterns @ patterns.T, np.eye(layout.SIZE))
    pixels = draw(32, 32)[None]
    flat = (pixels - 127.5).transpose(0, 3, 1, 2).reshape(1, -1)
    assert np.allclose(layout.analyse(pixels), flat @ patterns.T)


def test_an_enlarged_placeholder_is_smooth_and_keeps_its_means() -> None:
    large = vqcodec.placeholder_image(GOLDEN, width=320).samples.astype(int)
    assert np.abs(np.diff(large, axis=0)).max() < 12 and np.abs(np.diff(large, axis=1)).max() < 12
    small = vqcodec.placeholder_image(GOLDEN, width=32).samples.astype(int)
    assert large.shape[1] == 320
    assert np.abs(large.mean((0, 1)) - small.mean((0, 1))).max() < 1.5


# range coder and text


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_range_coder_round_trip(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.lists(st.integers(1, 4000), min_size=1, max_size=30), max_size=40))
    coder, models, bits = rangecoder.Encoder(), [], 0.0
    for shares in counts:
        sizes = 1 + np.floor(np.array(shares) / sum(shares) * (rangecoder.TOTAL - len(shares))).astype(int)
        sizes[0] += rangecoder.TOTAL - sizes.sum()
        cumulative = [0, *np.cumsum(sizes).tolist()]
        symbol = data.draw(st.integers(0, len(shares) - 1))
        coder.put(cumulative[symbol], int(sizes[symbol]))
        models.append((symbol, cumulative))
        bits -= np.log2(sizes[symbol] / rangecoder.TOTAL)
    payload = coder.finish()
    assert 8 * len(payload) < bits + 8.5 + 0.01 * len(models)
    decoder = rangecoder.Decoder(payload)
    assert [decoder.get(cumulative) for _, cumulative in models] == [symbol for symbol, _ in models]


def test_bytes_at_the_end_of_the_interval_are_outside_it() -> None:
    """Here the shortest bytes that are not below the interval are its very end, the next symbol's."""
    coder, intervals = rangecoder.Encoder(), [(6140, 2), (960, 32), (12288, 4096)]
    for start, size in intervals:
        coder.put(start, size)
    assert coder.finish() == b"_\xf0c\x01"
    decoder = rangecoder.Decoder(coder.finish())
    for start, size in intervals:
        assert decoder.get([0, start, start + size, *[rangecoder.TOTAL] * (start + size < 16384)]) == 1


@settings(max_examples=60, deadline=None)
@given(st.integers(-48, 48), st.integers(0, 23), st.integers(0, 2**32 - 1), st.floats(0, 3))
def test_symbols_survive(aspect: int, quality: int, seed: int, spread: float) -> None:
    chosen = TABLES.chosen(quality)
    rng, largest = np.random.default_rng(seed), TABLES.largest[chosen].astype(int)
    symbols = np.clip(np.rint(rng.laplace(0, spread, len(chosen))).astype(int), -largest, largest)
    payload = SEARCHER.write(Placeholder(aspect, quality, symbols.astype(np.int64)))
    if len(payload) < text.LARGEST:
        found = decode(text.pack(0, payload), TABLES)
        assert (found.aspect, found.quality, found.symbols.tolist()) == (aspect, quality, symbols.tolist())


def test_every_changed_character_is_refused() -> None:
    for size in (6, 24, 64):
        good = vqcodec.placeholder(draw(90, 60), size=size)
        for place in range(len(good)):
            for other in map(chr, range(256)):
                if other != good[place]:
                    with pytest.raises((DamagedError, VersionError)):
                        vqcodec.placeholder_image(good[:place] + other + good[place + 1 :])


def test_truncated_and_extended_texts_decode_or_are_refused() -> None:
    good = vqcodec.placeholder(draw(90, 60), size=40)
    refused = 0
    for end in range(len(good)):
        for changed in (good[:end], good + good[:end], good[:end] + "A" * 60):
            try:
                vqcodec.placeholder_image(changed)
            except DamagedError:
                refused += 1
    assert refused > 2.7 * len(good)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=0, max_size=63))
def test_any_payload_draws_or_is_refused(payload: bytes) -> None:
    try:
        found = decode(text.pack(0, payload), TABLES)
    except DamagedError:
        return
    assert drawn(text.pack(0, payload)).shape == (32, 32, 3)
    assert np.abs(TABLES.coefficients(found.symbols, found.quality)).max() < 1 << 30


@pytest.mark.parametrize(
    "bad", ["", "A", "not a placeholder", "A" * 87, "A" * 5, "ÄÄÄÄ", "AAAA\n", " AAAA", "AA==", "A/+A"]
)
def test_texts_that_are_none(bad: str) -> None:
    with pytest.raises(DamagedError) as caught:
        vqcodec.placeholder_image(bad)
    assert caught.value.hint


def test_a_text_has_one_form() -> None:
    """Bits that the last character has too many are zero."""
    good = next(t for n in range(20) if len(t := vqcodec.placeholder(draw(60, 40, n))) % 4)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    other = good[:-1] + alphabet[alphabet.index(good[-1]) + 1]
    pad = "=" * (-len(good) % 4)
    assert base64.urlsafe_b64decode(other + pad) == base64.urlsafe_b64decode(good + pad)
    with pytest.raises(DamagedError):
        vqcodec.placeholder_image(other)


def test_a_code_beyond_the_last_symbol_is_refused() -> None:
    """The range is 2^32 - 1, of which 2^14 symbols of equal size leave a rest."""
    with pytest.raises(DamagedError):
        vqcodec.placeholder_image(text.pack(0, b"\xff" * 8))


def test_a_later_model_is_named() -> None:
    with pytest.raises(VersionError, match="model number 2"):
        vqcodec.placeholder_image(text.pack(2, b"abc"))


# limits


@settings(max_examples=25, deadline=None)
@given(st.integers(4, 64), st.integers(0, 99), st.sampled_from(["photo", "noise", "flat", "stripes"]))
def test_sizes_are_kept(size: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    pixels = {
        "photo": draw(70, 50, seed),
        "noise": rng.integers(0, 256, (50, 70, 3)).astype(np.uint8),
        "flat": np.full((50, 70, 3), rng.integers(0, 256, 3), np.uint8),
        "stripes": np.tile(np.uint8([[[0], [255]]]), (50, 35, 3)),
    }[kind]
    found = vqcodec.placeholder(pixels, size=size)
    assert len(found) * 6 // 8 <= size
    vqcodec.placeholder_image(found)


@pytest.mark.parametrize("size", [3, 65, -1])
def test_other_sizes_are_refused(size: int) -> None:
    with pytest.raises(UsageError):
        vqcodec.placeholder(draw(9, 9), size=size)


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 0, 255), (90, 140, 60)])
def test_one_colour_is_kept(colour: tuple[int, int, int]) -> None:
    image = vqcodec.placeholder_image(vqcodec.placeholder(np.full((20, 20, 3), colour, np.uint8)))
    assert np.abs(image.samples.astype(int) - colour).mean() < 24


@pytest.mark.parametrize(
    ("width", "height", "index"),
    [(1, 1, 0), (3, 2, 7), (2, 3, -7), (4, 3, 5), (16, 9, 10), (2, 1, 12), (5000, 1, 48), (1, 5000, -48)],
)
def test_aspect_ratios(width: int, height: int, index: int) -> None:
    assert aspect_index(width, height) == index
    image = vqcodec.placeholder_image(vqcodec.placeholder(np.zeros((height, width, 3), np.uint8)), width=240)
    ratio = min(max(width / height, 1 / 16), 16)
    assert abs(image.height - 240 / ratio) <= max(1, 0.03 * 240 / ratio)


def test_very_tall_images_are_cut_at_the_longest_side() -> None:
    tall = vqcodec.placeholder(np.zeros((500, 2, 3), np.uint8))
    assert vqcodec.placeholder_image(tall, width=1000).height == 4096
    for width in (0, 4097):
        with pytest.raises(UsageError):
            vqcodec.placeholder_image(tall, width=width)


def test_transparent_pixels_are_seen_on_white() -> None:
    pixels = draw(60, 40)
    alpha = np.zeros((40, 60), np.uint8)
    alpha[:, :30] = 255
    white = pixels.copy()
    white[:, 30:] = 255
    shown = thumbnails.thumbnail(media.Image(pixels, alpha=alpha)).astype(int)
    assert np.abs(shown - thumbnails.thumbnail(media.Image(white))).mean() < 3
    assert shown[:, 18:].min() > 250
    alpha[:] = 0
    nothing = vqcodec.placeholder_image(vqcodec.placeholder(media.Image(pixels, alpha=alpha)))
    assert nothing.samples.mean() > 240


def test_gray_images() -> None:
    gray = draw(60, 40)[..., :1]
    assert vqcodec.placeholder(media.Image(gray)) == vqcodec.placeholder(np.repeat(gray, 3, 2))


def test_profiles_are_applied() -> None:
    """Of a profile that changes nothing, nothing; a broken one is passed over."""
    pixels = draw(60, 40)
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain = thumbnails.thumbnail(media.Image(pixels)).astype(int)
    assert np.abs(plain - thumbnails.thumbnail(media.Image(pixels, icc=icc))).max() <= 1
    assert np.array_equal(plain, thumbnails.thumbnail(media.Image(pixels, icc=b"nothing")))


def test_what_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    for source in (
        tmp_path / "x.png",
        tmp_path / "gone.png",
        media.Audio.of(np.zeros(9, np.float32), 16_000),
    ):
        with pytest.raises(MediaError):
            vqcodec.placeholder(source)


def test_data_uris_are_images_of_32_pixels() -> None:
    for width, height in ((90, 60), (60, 90), (9, 900), (900, 9)):
        uri = thumbnails.data_uri(vqcodec.placeholder(draw(width, height)))
        kind, data = uri.split(",")
        assert kind == "data:image/webp;base64" and len(uri) < 700
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(data)))
        assert max(picture.size) == 32 and min(picture.size) >= 2
        assert (picture.width > picture.height) == (width > height)


# weights


def test_weights_are_those_of_a_pca() -> None:
    """The integer basis is orthonormal but for its rounding, its deviations fall, and every table sums up."""
    basis = SEARCHER._basis
    assert np.abs(basis @ basis.T - np.eye(len(basis))).max() < 0.02
    assert np.all(np.diff(TABLES.octaves.astype(int)) <= 0)
    assert len(TABLES.to_bytes()) < 60_000
    for quality in range(tables.QUALITIES):
        chosen = TABLES.chosen(quality)
        gains = TABLES.largest[chosen].astype(np.int64) * TABLES.gains(quality)[: len(chosen)]
        sums = gains @ np.abs(TABLES.basis[: len(chosen)].astype(np.int64))
        assert sums.max() / 256 + 2**15 < 2**30, "doubles are exact through both sums of cosines"
    for table in TABLES.frequencies:
        assert table.min() >= 1 and table.sum() == rangecoder.TOTAL


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(tables.Tables)])
def test_weights_that_do_not_fit_are_refused(name: str) -> None:
    good = {tables.PREFIX + f.name: getattr(TABLES, f.name) for f in dataclasses.fields(TABLES)}
    tables.Tables.of(good)
    key = tables.PREFIX + name
    for changed in (good[key][:-1], good[key].astype(np.float32)):
        with pytest.raises(ModelError):
            tables.Tables.of(good | {key: changed})
    with pytest.raises(ModelError):
        tables.Tables.of({k: v for k, v in good.items() if k != key})
    more = TABLES.tables.copy()
    more[0] += 1
    for wrong in (np.zeros_like(more), more):
        with pytest.raises(ModelError):
            tables.Tables.of(good | {tables.PREFIX + "tables": wrong})


def test_frequencies_round_down_and_the_likeliest_symbol_has_the_rest() -> None:
    masses = np.array([1.0, 2, 96, 1])
    found = fitting._whole(masses)
    assert found.tolist() == [1 + 163, 1 + 327, 1 + 15_724 + 3, 1 + 163]
    assert found.sum() == rangecoder.TOTAL


@pytest.mark.parametrize("colour", [(0, 177, 64), (233, 30, 99), (0, 255, 0), (255, 0, 255)])
def test_saturated_colours_choose_a_step_that_reaches_them(colour: tuple[int, int, int]) -> None:
    """A finer step costs fewer bits than there are, and its tables end before such latents."""
    flat = np.broadcast_to(np.array(colour, np.uint8), (48, 64, 3))
    for size in (15, 24, 32):
        drawn = vqcodec.placeholder_image(vqcodec.placeholder(np.ascontiguousarray(flat), size=size)).samples
        error = np.square(drawn.astype(float) - colour).mean()
        assert 10 * np.log10(255**2 / error) > 19, (size, drawn.mean((0, 1)))


def test_gray_profiles_hold_under_alpha() -> None:
    """Alpha has no profile: gray 60 of a linear profile is as light with it as without."""
    linear = Colorimetry.of_png(1.0, None).profile(1)
    gray, alpha = np.full((32, 32, 1), 60, np.uint8), np.full((32, 32), 255, np.uint8)
    alpha[0] = 254
    plain, clear = (thumbnails.thumbnail(media.Image(gray, a, icc=linear)) for a in (None, alpha))
    assert abs(int(plain.mean()) - int(clear.mean())) <= 1 and plain.mean() > 100


def test_many_widths_do_not_fill_the_memory() -> None:
    text = vqcodec.placeholder(np.zeros((8, 8, 3), np.uint8))
    for width in range(1, 200):
        vqcodec.placeholder_image(text, width=width)
    assert layout.cosines.cache_info().currsize <= 64
