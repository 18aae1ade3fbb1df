"""The conditional Gaussian: integers that every machine shares, and what they say."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vqcodec.coding.rangecoder import TOTAL, Decoder, Encoder
from vqcodec.errors import ModelError
from vqcodec.priors import context, exact, gaussian
from vqcodec.priors import gaussian_tables as normal
from vqcodec.priors.context import Shape

SHAPE = Shape(channels=20, width=12, hidden=10, blocks=2, near=12)
PLACE = 90


def prior(seed: int = 0, shape: Shape = SHAPE) -> gaussian.GaussianPrior:
    """Layers of random weights large enough to reach the limits."""
    torch.manual_seed(seed)
    layers = context.layers_in_training(shape)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(1.5).add_(0.2 * torch.randn_like(parameter))
    rise = torch.full((shape.channels,), 2.0**20 / 54)
    start = torch.linspace(2, -4, shape.channels) * 2**20
    return gaussian.export(dict(layers.items()), shape, (rise.round(), start.round()))


def targets(count: int = 2, height: int = 7, width: int = 5, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    scale = np.geomspace(40, 0.1, SHAPE.channels)
    drawn = rng.laplace(size=(count, height, width, SHAPE.channels)) * scale
    drawn[0, 0, 0] = 3000  # beyond every table, and what can be held
    return [*drawn.astype(np.float32)]


# tables


def test_tables_are_gaussians() -> None:
    tables = normal.tables()
    for number in range(1, normal.WIDTHS, 7):
        table, sigma = tables.tables[number], 2 ** ((3 * number - 53) / 16)
        assert table is not None
        largest = len(table) // 2 - 1
        assert table.sum(dtype=np.int64) == TOTAL and table.min() >= normal.FLOOR
        assert np.array_equal(table[:largest], table[2 * largest : largest : -1])
        drawn = torch.distributions.Normal(0.0, sigma)
        edges = torch.arange(-largest, largest + 2, dtype=torch.float64) - 0.5
        mass = drawn.cdf(edges).diff().numpy()
        assert np.abs(table[:-1] / TOTAL - mass).max() < 7e-3 * mass.max()


def test_no_mass_is_near_to_a_half() -> None:
    """So that no erfc in double precision, of whatever library, gives another frequency."""
    for number in range(1, normal.WIDTHS):
        sigma = 2 ** ((3 * number - 53) / 16)
        shares = normal.scaled_masses(sigma, math.ceil(6 * sigma) + 2)
        assert np.abs(shares - np.floor(shares) - 0.5).min() > 100 * TOTAL * 2.0**-53


def test_tables_are_part_of_the_format() -> None:
    whole = np.concatenate([t for t in normal.tables().tables if t is not None])
    assert zlib.crc32(whole.astype("<u4").tobytes()) == 279849126


@given(st.lists(st.tuples(st.integers(-(2**23), 2**23 - 1), st.integers(0, 63)), max_size=60), st.booleans())
@settings(deadline=None, max_examples=60)
def test_coding_by_tables_is_undone(pairs: list[tuple[int, int]], small: bool) -> None:
    numbers = np.array([number for _, number in pairs], np.uint8)
    codes = np.array([code % 5 - 2 if small else code for code, _ in pairs], np.int32)
    codes[numbers == 0] = 0
    encoder = Encoder()
    encoder.encode_by(codes, numbers, normal.tables())
    decoder = Decoder(encoder.finish())
    assert np.array_equal(decoder.decode_by(numbers, normal.tables()), codes)
    decoder.finish()


def test_costs_are_what_the_coder_spends() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 64, 40_000).astype(np.uint8)
    sigma = 2 ** ((3 * numbers.astype(int) - 53) / 16)
    codes = np.rint(rng.laplace(size=len(numbers)) * sigma * 2).astype(np.int32)
    encoder = Encoder()
    encoder.encode_by(codes, numbers, normal.tables())
    assert abs(8 * len(encoder.finish()) - normal.tables().costs(codes, numbers).sum()) < 100


def test_draws_have_the_width_of_their_table() -> None:
    source = np.random.Philox(key=np.array((1, 2), np.uint64))
    drawn = normal.tables().drawn(source.random_raw(100_000), np.full(100_000, 30, np.uint8))
    assert abs(drawn.std() / math.hypot(2 ** ((90 - 53) / 16), 12**-0.5) - 1) < 0.02
    assert abs(drawn.mean()) < 0.1


# arithmetic


@given(st.lists(st.integers(-normal.LIMIT, normal.LIMIT), min_size=1, max_size=50), st.integers(-150, 150))
@settings(deadline=None)
def test_scaling_by_powers_of_two(values: list[int], exponent: int) -> None:
    ours = normal.scaled(
        torch.tensor([values], dtype=torch.int32), torch.tensor([exponent], dtype=torch.int32), 4
    )
    factor = round(2 ** (14 + exponent % 16 / 16)) / 2**14  # the table's
    real = [math.floor(v * factor * 2.0 ** (exponent // 16 - 4) + 0.5) for v in values]
    limited = [min(max(v, -normal.LIMIT), normal.LIMIT) for v in real]
    if 4 - exponent // 16 + 14 <= 31:
        assert ours[0].tolist() == limited


def test_compression_is_the_inverse_hyperbolic_sine() -> None:
    values = np.arange(-normal.LIMIT, normal.LIMIT + 1)
    ours = normal.compressed(torch.from_numpy(values.astype(np.int32))).numpy()
    real = 16 * np.arcsinh(values / 16)
    assert np.array_equal(ours, np.sign(values) * np.minimum(np.floor(np.abs(real) + 0.5), 127))


# the walk


def test_steps_visit_every_latent_once() -> None:
    for height, width in ((1, 1), (2, 3), (5, 8)):
        seen = np.zeros((height * width, SHAPE.channels), int)
        for s, p in SHAPE.steps:
            seen[context.places(s, p, height, width), SHAPE.slices[s]] += 1
        assert (seen == 1).all()


def test_an_expectation_never_sees_its_own_latents_or_later_ones() -> None:
    model = prior()
    first, second = targets(1, seed=1)[0], targets(1, seed=2)[0]
    steps = SHAPE.steps
    for change, (s, p) in enumerate(steps):
        mixed = first.copy().reshape(-1, SHAPE.channels)
        for later in steps[change:]:
            where = context.places(*later, 7, 5).numpy()
            mixed[where, SHAPE.slices[later[0]]] = second.reshape(-1, SHAPE.channels)[
                where, SHAPE.slices[later[0]]
            ]
        a = expectations(model, first)
        b = expectations(model, mixed.reshape(first.shape))
        for number in range(change + 1):
            assert all(np.array_equal(x, y) for x, y in zip(a[number], b[number], strict=True)), (s, p)


def expectations(model: gaussian.GaussianPrior, target: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    scan = gaussian._Scan(model, PLACE, 1, *target.shape[:2])
    flat = target.reshape(-1, target.shape[2])
    found = []
    for s, p in model.shape.steps:
        expected = scan.expect(s, p)
        found.append(expected)
        values = np.clip(np.rint(16 * flat[scan.where(s, p), model.shape.slices[s]]), -30_000, 30_000)
        scan.put(s, p, values.astype(np.int32))
    return found


@pytest.mark.parametrize("trade", [None, np.full(SHAPE.channels, 5, np.float32)])
def test_what_is_coded_is_read(trade: np.ndarray | None) -> None:
    model = prior()
    regions = model.code(targets(3), PLACE, trade)
    read = model.read([r.payload for r in regions], PLACE, 7, 5)
    for region, latents, target in zip(regions, read, targets(3), strict=True):
        assert latents is not None and np.array_equal(latents, region.latents)
        assert abs(8 * len(region.payload) - region.bits) < 70
        inside = np.abs(target) < 1900
        if trade is None:
            error = np.abs(region.latents / 16 - target)[inside]
            # But for codes that are not written, since their Gaussian is so narrow.
            assert (error <= 0.5 + 1 / 16).mean() > 0.9


def test_carriers_threads_and_batches_give_the_same_bytes() -> None:
    model = prior()
    whole = [r.payload for r in model.code(targets(3), PLACE)]
    wide = model.carried_by(torch.float64)
    assert [r.payload for r in wide.code(targets(3), PLACE)] == whole
    assert [model.code([t], PLACE)[0].payload for t in targets(3)] == whole
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert [r.payload for r in model.code(targets(3), PLACE)] == whole
    finally:
        torch.set_num_threads(threads)
    assert zlib.crc32(b"".join(whole)) == 2425411723


def test_numpy_gives_the_same_expectations() -> None:
    """The network once more, in 40 lines of int64."""
    model, target = prior(), targets(1)[0]
    ours = expectations(model, target)
    theirs = reference(model, target)
    for (mean, width), (mean_again, width_again) in zip(ours, theirs, strict=True):
        assert np.array_equal(mean, mean_again) and np.array_equal(width, width_again)


def reference(model: gaussian.GaussianPrior, target: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    height, width, channels = target.shape
    powers = [round(2 ** (14 + f / 16)) for f in range(16)]
    exponents = [
        (int(a) + int(b) * PLACE) >> 16
        for a, b in zip(model.arrays["start"], model.arrays["rise"], strict=True)
    ]

    def layer(name: str, x: np.ndarray) -> np.ndarray:
        w, b, s = (model.arrays[f"{name}.{part}"].astype(np.int64) for part in ("weight", "bias", "shift"))
        return (x @ w.T + b) >> s

    def scaled(v: np.ndarray, e: int, shift: int) -> np.ndarray:
        right = min(max(14 + shift - (e >> 4), 0), 31)
        half = 1 << (right - 1) if right else 0
        return np.clip((v * powers[e & 15] + half) >> right, -32767, 32767)

    def active(x: np.ndarray) -> np.ndarray:
        return np.clip((x + 8) >> 4, 0, 127)

    def summed(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.clip(x + y, -(2**15), 2**15)

    def window(x: np.ndarray, reach: int, centre: bool) -> np.ndarray:
        padded = np.pad(x.reshape(height, width, -1), ((reach, reach), (reach, reach), (0, 0)))
        size = range(2 * reach + 1)
        parts = [
            padded[i : i + height, j : j + width]
            for i in size
            for j in size
            if centre or (i, j) != (reach, reach)
        ]
        return np.concatenate(parts, 2).reshape(height * width, -1)

    inputs = [np.full((height * width, 1), (PLACE - 128) // 2)]
    flat, found = target.reshape(-1, channels), []
    for s, part in enumerate(model.shape.slices):
        x = layer(f"{s}_first", np.concatenate(inputs, 1))
        for n in range(model.shape.blocks if s else 0):
            inner = np.clip(layer(f"{s}_spatial{n}", window(active(x), 1, True)), 0, 127)
            x = summed(x, layer(f"{s}_pointwise{n}", inner))
        count = part.stop - part.start
        told = np.zeros((height * width, 2 * count), np.int64)
        near = np.zeros((height * width, len(model.arrays[f"{s}_near.bias"])), np.int64)
        for p in range(context.phases(s)):
            where, y = context.places(s, p, height, width).numpy(), x
            if p:
                y = summed(y, layer(f"{s}_around{p}", window(near, 1 if s else 2, False)))
                y = summed(y, layer(f"{s}_contract{p}", np.clip(layer(f"{s}_expand{p}", active(y)), 0, 127)))
            out = np.clip(layer(f"{s}_head{p}", active(y[where])), -(2**15), 2**15)
            mean = np.stack([scaled(out[:, c], exponents[part.start + c], 4) for c in range(count)], 1)
            log = out[:, count:] + 16 * np.array(exponents[part]) + 24 + 53 * 16
            found.append((mean, np.clip(log // 48, 0, 63)))
            value = np.clip(np.rint(16 * flat[where, part]), -30_000, 30_000).astype(np.int64)
            over = np.stack([scaled(value[:, c], -exponents[part.start + c], 0) for c in range(count)], 1)
            told[where, :count] = np.clip(over, -127, 127)
            told[where, count:] = np.sign(value) * np.minimum(
                np.floor(np.abs(16 * np.arcsinh(value / 16)) + 0.5), 127
            )
            near[where] = np.clip(layer(f"{s}_near", told[where]), 0, 127)
        inputs.append(told)
    return found


def test_training_sees_what_coding_does() -> None:
    """The walk on real numbers, which training has, gives the integers over their powers of two."""
    torch.manual_seed(3)
    layers = context.layers_in_training(SHAPE)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(1.5).add_(0.2 * torch.randn_like(parameter))
    line = torch.zeros(SHAPE.channels), torch.zeros(SHAPE.channels)
    model = gaussian.export(dict(layers.items()), SHAPE, line)
    told = torch.full((1, 1), -3.0)
    whole = context.Walk(SHAPE, model.layers, context.Integers(), (1, 6, 5), told)
    real = context.Walk(SHAPE, dict(layers.items()), context.Reals(), (1, 6, 5), told / 16)
    for s, p in SHAPE.steps:
        with torch.inference_mode():
            a, b = whole.expect(s, p), real.expect(s, p)
            assert torch.equal(a / 2**context.SCALE, b)
            features = torch.randint(-127, 128, (len(a), a.shape[1])).float()
            whole.put(s, p, features.clone())
            real.put(s, p, features / 16)


def test_only_the_first_slices_can_be_read() -> None:
    model = prior()
    (region,) = model.code(targets(1), PLACE)
    (first,) = model.read([region.payload], PLACE, 7, 5, slices=1)
    assert first is not None
    assert np.array_equal(first[..., :16], region.latents[..., :16]) and not first[..., 16:].any()


def test_damage_is_noticed_or_gives_other_latents() -> None:
    model = prior()
    (region,) = model.code(targets(1), PLACE)
    for at in range(0, len(region.payload), 7):
        broken = bytearray(region.payload)
        broken[at] ^= 0x40
        (read,) = model.read([bytes(broken)], PLACE, 7, 5)
        assert read is None or not np.array_equal(read, region.latents)
    longer = [region.payload + bytes(range(1, 13)), b"abc"]
    assert all(read is None for read in model.read(longer, PLACE, 7, 5))


def test_draws_are_the_same_for_a_seed() -> None:
    model = prior()
    drawn = model.draw(PLACE, (6, 5), (4, 0))
    assert np.array_equal(drawn, model.draw(PLACE, (6, 5), (4, 0)))
    assert not np.array_equal(drawn, model.draw(PLACE, (6, 5), (5, 0)))
    again = model.draw(PLACE, (6, 5), (5, 0), known=drawn, kept=2)
    assert np.array_equal(again[:2], drawn[:2]) and not np.array_equal(again[2:], drawn[2:])
    narrow = model.draw(PLACE, (6, 5), (4, 0), temperature=1 / 16)
    assert np.abs(narrow).mean() < np.abs(drawn).mean()


def test_a_prior_that_does_not_fit_is_refused() -> None:
    arrays = dict(prior().arrays)
    with pytest.raises(ModelError, match="rise"):
        gaussian.GaussianPrior({n: a for n, a in arrays.items() if n != "rise"}, shape=SHAPE)
    with pytest.raises(ModelError, match="1_first"):
        gaussian.GaussianPrior({n: a for n, a in arrays.items() if not n.startswith("1_first")}, shape=SHAPE)
    with pytest.raises(ModelError, match="of a prior is"):
        gaussian.GaussianPrior(arrays, shape=Shape(20, 12, 9, 2, 12))


def test_exactness_is_checked_at_export() -> None:
    layers = context.layers_in_training(Shape(20, 600, 10, 1, 12))
    with torch.no_grad():
        layers["1_spatial0"].weight.fill_(1.0)
    with pytest.raises(ModelError, match="exact"):
        layers["1_spatial0"].export()
    assert exact.EXACT == 2**24
