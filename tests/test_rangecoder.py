import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vqcodec.coding.rangecoder import RangeDecoder, RangeEncoder, pack_raw, unpack_raw
from vqcodec.errors import DamagedError
from vqcodec.priors.base import TOTAL, Categorical

MODERATE = settings(derandomize=True, deadline=None, database=None, max_examples=150)


def random_frequencies(rng, n, levels, sharpness):
    """Rows of integers, each at least 1, each row summing to TOTAL; sharp ones leave most symbols at 1."""
    weights = rng.dirichlet(np.full(levels, sharpness), size=n)
    frequencies = 1 + np.floor(weights * (TOTAL - levels)).astype(np.int64)
    frequencies[np.arange(n), frequencies.argmax(1)] += TOTAL - frequencies.sum(1)
    assert (frequencies >= 1).all() and (frequencies.sum(1) == TOTAL).all()
    return frequencies.astype(np.uint32)


def drawn(rng, frequencies):
    """A symbol per row, as probable as its frequency says."""
    at = rng.integers(0, TOTAL, (len(frequencies), 1))
    return (frequencies.cumsum(1, dtype=np.int64) > at).argmax(1).astype(np.int32)


def reference_decode(data, frequencies):
    """The decoder of FORMAT-priors.md in Python's own integers."""
    words = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
    words.reverse()
    mask = 2**64 - 1
    low, span = 0, mask
    point = (words.pop() if words else 0) << 32
    point |= words.pop() if words else 0
    symbols = []
    for row in frequencies.tolist():
        scale = span >> 24
        quantile = ((point - low) & mask) // scale
        assert quantile < TOTAL
        before, symbol = 0, 0
        while before + row[symbol] <= quantile:
            before += row[symbol]
            symbol += 1
        symbols.append(symbol)
        low = (low + scale * before) & mask
        span = scale * row[symbol]
        if span < 2**32:
            low, span = (low << 32) & mask, span << 32
            point = (point << 32) & mask | (words.pop() if words else 0)
    assert not words
    return symbols


@MODERATE
@given(
    st.integers(0, 2**32 - 1),
    st.integers(0, 60),
    st.sampled_from([2, 3, 16, 512]),
    st.sampled_from([0.001, 0.05, 1.0, 100.0]),
    st.booleans(),
)
def test_round_trip_and_independent_decoder(seed, n, levels, sharpness, likely):
    rng = np.random.default_rng(seed)
    frequencies = random_frequencies(rng, n, levels, sharpness)
    symbols = drawn(rng, frequencies) if likely else rng.integers(0, levels, n, dtype=np.int32)
    encoder = RangeEncoder()
    cut = n // 3
    encoder.encode(symbols[:cut], Categorical(frequencies[:cut]))
    encoder.encode(symbols[cut:], Categorical(frequencies[cut:]))
    data = encoder.finish()
    assert reference_decode(data, frequencies) == symbols.tolist()
    decoder = RangeDecoder(data)
    found = [decoder.decode(Categorical(frequencies[i : i + 7])) for i in range(0, n, 7)]
    decoder.finish()
    assert np.concatenate([*found, np.zeros(0, np.int32)]).tolist() == symbols.tolist()


def test_known_answer():
    """The bytes are a promise: a change of them breaks every file there is."""
    frequencies = np.array([[TOTAL - 3, 1, 1, 1], [TOTAL // 4] * 4, [1, 2, 3, TOTAL - 6]], np.uint32)
    frequencies = np.tile(frequencies, (4, 1))
    symbols = np.array([0, 3, 3, 1, 0, 3, 0, 2, 0, 3, 1, 2], np.int32)
    encoder = RangeEncoder()
    encoder.encode(symbols, Categorical(frequencies))
    data = encoder.finish()
    assert data.hex() == "47fcfffff5a3c2fcc000fdff0040ff02"
    assert reference_decode(data, frequencies) == symbols.tolist()


@pytest.mark.parametrize(("levels", "sharpness"), [(2, 1.0), (512, 0.05), (512, 1.0), (4096, 0.01)])
def test_size_is_what_the_integer_frequencies_cost(levels, sharpness):
    rng = np.random.default_rng(levels)
    frequencies = random_frequencies(rng, 2000, levels, sharpness)
    symbols = drawn(rng, frequencies)
    encoder = RangeEncoder()
    encoder.encode(symbols, Categorical(frequencies))
    chosen = frequencies[np.arange(len(symbols)), symbols]
    ideal = -np.log2(chosen / TOTAL).sum() / 8
    assert ideal - 1 <= len(encoder.finish()) <= ideal * 1.0005 + 8


def test_intervals_at_the_edge_of_float32():
    """The first and last unit of every interval decode to its symbol: no rounding anywhere."""
    rng = np.random.default_rng(0)
    frequencies = random_frequencies(rng, 40, 512, 0.02)
    start = frequencies.cumsum(1, dtype=np.int64) - frequencies
    scale = (2**64 - 1) >> 24
    for row, begins in zip(frequencies, start, strict=True):
        for symbol in rng.integers(0, 512, 20).tolist():
            for quantile in (int(begins[symbol]), int(begins[symbol]) + int(row[symbol]) - 1):
                point = quantile * scale
                data = (point >> 32).to_bytes(4, "little") + (point & 0xFFFFFFFF).to_bytes(4, "little")
                assert RangeDecoder(data).decode(Categorical(row[None])).tolist() == [symbol]


@MODERATE
@given(st.binary(max_size=60), st.integers(0, 2**32 - 1), st.sampled_from([2, 7, 512]))
def test_garbage_gives_codes_in_range_or_a_damaged_error(data, seed, levels):
    frequencies = random_frequencies(np.random.default_rng(seed), 100, levels, 0.1)
    try:
        decoder = RangeDecoder(data)
        symbols = decoder.decode(Categorical(frequencies))
    except DamagedError:
        return
    assert symbols.dtype == np.int32 and symbols.shape == (100,)
    assert 0 <= symbols.min() <= symbols.max() < levels


def test_damage_is_named():
    frequencies = np.full((3, 4), TOTAL // 4, np.uint32)
    with pytest.raises(DamagedError, match="whole number of words"):
        RangeDecoder(b"12345")
    with pytest.raises(DamagedError, match="no encoder writes"):
        RangeDecoder(b"\xff" * 8).decode(Categorical(frequencies))
    decoder = RangeDecoder(bytes(40))
    decoder.decode(Categorical(frequencies))
    with pytest.raises(DamagedError, match="left after the last symbol"):
        decoder.finish()


def test_nothing_takes_no_bytes():
    empty = np.zeros((0, 5), np.uint32)
    encoder = RangeEncoder()
    encoder.encode(np.zeros(0, np.int32), Categorical(empty))
    assert encoder.finish() == b""
    decoder = RangeDecoder(b"")
    assert decoder.decode(Categorical(empty)).shape == (0,)
    decoder.finish()


def test_frequencies_are_left_alone():
    frequencies = np.full((3, 4), TOTAL // 4, np.uint32)
    encoder = RangeEncoder()
    encoder.encode(np.zeros(3, np.int32), Categorical(frequencies))
    RangeDecoder(encoder.finish()).decode(Categorical(frequencies))
    assert (frequencies == TOTAL // 4).all()


@MODERATE
@given(st.data(), st.integers(1, 16))
def test_raw_packing(data, bits):
    codes = np.array(data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=50)), np.int32)
    packed = pack_raw(codes, bits)
    text = "".join(f"{code:0{bits}b}" for code in codes)
    padded = text.ljust(8 * math.ceil(len(text) / 8), "0")
    assert packed == bytes(int(padded[at : at + 8], 2) for at in range(0, len(padded), 8))
    found = unpack_raw(packed, len(codes), bits)
    assert found.dtype == np.int32
    assert found.tolist() == codes.tolist()


def test_raw_packing_takes_pictures_of_codes():
    codes = np.arange(6, dtype=np.int32).reshape(2, 3)
    assert pack_raw(codes, 9) == pack_raw(codes.ravel(), 9)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00", b"\x00\x01"])
def test_raw_packing_refuses_other_sizes_and_filling(data):
    with pytest.raises(DamagedError):
        unpack_raw(data, 1, 9)


def test_another_kind_of_model_is_refused():
    with pytest.raises(TypeError, match="no coding by int"):
        RangeEncoder().encode(np.zeros(1, np.int32), 3)
    with pytest.raises(TypeError, match="no coding by int"):
        RangeDecoder(b"").decode(3)


def test_what_a_prior_excludes_is_not_drawn():
    class Lowest:
        def random_raw(self, count):
            return np.zeros(count, np.uint64)

    frequencies = np.array([[1, TOTAL - 2, 1], [TOTAL - 2, 1, 1]], np.uint32)
    assert Categorical(frequencies).sample(Lowest()).tolist() == [1, 0]
