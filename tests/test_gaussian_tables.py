"""Gaussian tables, and the fixed-point arithmetic of latents."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqcodec.coding.rangecoder import RangeDecoder, RangeEncoder
from vqcodec.priors import gaussian_tables
from vqcodec.priors.base import TOTAL
from vqcodec.priors.gaussian_tables import Gaussian

# tables


def test_tables_are_gaussians() -> None:
    tables = gaussian_tables.tables()
    for number in range(1, gaussian_tables.SCALE_LEVELS, 7):
        table, sigma = tables.tables[number], 2 ** ((3 * number - 53) / 16)
        assert table is not None
        largest = len(table) // 2 - 1
        assert table.sum(dtype=np.int64) == TOTAL and table.min() >= gaussian_tables.FLOOR
        assert np.array_equal(table[:largest], table[2 * largest : largest : -1])
        drawn = torch.distributions.Normal(0.0, sigma)
        edges = torch.arange(-largest, largest + 2, dtype=torch.float64) - 0.5
        mass = drawn.cdf(edges).diff().numpy()
        assert np.abs(table[:-1] / TOTAL - mass).max() < 7e-3 * mass.max()


def test_no_mass_is_near_to_a_half() -> None:
    """So that no erfc in double precision, of whatever library, gives another frequency."""
    for number in range(1, gaussian_tables.SCALE_LEVELS):
        sigma = 2 ** ((3 * number - 53) / 16)
        shares = gaussian_tables.scaled_masses(sigma, math.ceil(6 * sigma) + 2)
        assert np.abs(shares - np.floor(shares) - 0.5).min() > 100 * TOTAL * 2.0**-53


def test_tables_are_part_of_the_format() -> None:
    whole = np.concatenate([t for t in gaussian_tables.tables().tables if t is not None])
    assert zlib.crc32(whole.astype("<u4").tobytes()) == 279849126


@given(st.lists(st.tuples(st.integers(-(2**23), 2**23 - 1), st.integers(0, 63)), max_size=60), st.booleans())
@settings(deadline=None, max_examples=60)
def test_coding_by_tables_is_undone(pairs: list[tuple[int, int]], small: bool) -> None:
    numbers = np.array([number for _, number in pairs], np.uint8)
    codes = np.array([code % 5 - 2 if small else code for code, _ in pairs], np.int32)
    codes[numbers == 0] = 0
    encoder = RangeEncoder()
    model = Gaussian(np.zeros(len(pairs), np.int32), numbers)
    encoder.encode(codes, model)
    decoder = RangeDecoder(encoder.finish())
    assert np.array_equal(decoder.decode(model), codes)
    decoder.finish()


def test_bits_are_what_the_coder_spends() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 64, 40_000).astype(np.uint8)
    sigma = 2 ** ((3 * numbers.astype(int) - 53) / 16)
    codes = np.rint(rng.laplace(size=len(numbers)) * sigma * 2).astype(np.int32)
    encoder = RangeEncoder()
    model = Gaussian(np.zeros(len(numbers), np.int32), numbers)
    encoder.encode(codes, model)
    assert abs(8 * len(encoder.finish()) - model.bits(codes)) < 100


def test_draws_have_the_width_of_their_table() -> None:
    source = np.random.Philox(key=np.array((1, 2), np.uint64))
    drawn = gaussian_tables.tables().sample(source.random_raw(100_000), np.full(100_000, 30, np.uint8))
    assert abs(drawn.std() / math.hypot(2 ** ((90 - 53) / 16), 12**-0.5) - 1) < 0.02
    assert abs(drawn.mean()) < 0.1


# arithmetic


@given(
    st.lists(st.integers(-gaussian_tables.LIMIT, gaussian_tables.LIMIT), min_size=1, max_size=50),
    st.integers(-150, 150),
)
@settings(deadline=None)
def test_scaling_by_powers_of_two(values: list[int], exponent: int) -> None:
    ours = gaussian_tables.scaled(
        torch.tensor([values], dtype=torch.int32), torch.tensor([exponent], dtype=torch.int32), 4
    )
    factor = round(2 ** (14 + exponent % 16 / 16)) / 2**14  # the table's
    real = [math.floor(v * factor * 2.0 ** (exponent // 16 - 4) + 0.5) for v in values]
    limited = [min(max(v, -gaussian_tables.LIMIT), gaussian_tables.LIMIT) for v in real]
    if 4 - exponent // 16 + 14 <= 31:
        assert ours[0].tolist() == limited


def test_compression_is_the_inverse_hyperbolic_sine() -> None:
    values = np.arange(-gaussian_tables.LIMIT, gaussian_tables.LIMIT + 1)
    ours = gaussian_tables.compressed(torch.from_numpy(values.astype(np.int32))).numpy()
    real = 16 * np.arcsinh(values / 16)
    assert np.array_equal(ours, np.sign(values) * np.minimum(np.floor(np.abs(real) + 0.5), 127))
