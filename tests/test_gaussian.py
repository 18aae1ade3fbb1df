"""The conditional Gaussian: integers that every machine shares."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from vqcodec.coding import driver
from vqcodec.errors import ModelError, UsageError
from vqcodec.priors import context, exact, gaussian
from vqcodec.priors.base import Step
from vqcodec.priors.context import Shape
from vqcodec.priors.gaussian_tables import SCALE_LEVELS, Gaussian
from vqcodec.priors.scale_mixtures import OFFSETS, plain

SHAPE = Shape(channels=20, width=12, hidden=10, blocks=2, near=12, levels=2)
INDEX = 90


def mixture(steps: int, seed: int) -> np.ndarray:
    """Weights of all components, some of them 0."""
    drawn = np.random.default_rng(seed).dirichlet(np.full(len(OFFSETS), 0.4), (steps, SCALE_LEVELS))
    whole = np.floor(drawn * 4096).astype(np.int64)
    whole[:, :, 3] += 4096 - whole.sum(2)
    return whole.astype(np.uint16)


def prior(seed: int = 0, shape: Shape = SHAPE, end_step: int = 16) -> gaussian.GaussianPrior:
    """Layers of random weights large enough to reach the limits."""
    torch.manual_seed(seed)
    layers = context.layers_in_training(shape)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(1.5).add_(0.2 * torch.randn_like(parameter))
    rise = torch.full((shape.channels,), 2.0**20 / 54)
    start = torch.linspace(2, -4, shape.channels) * 2**20
    return gaussian.export(
        dict(layers.items()), shape, (rise.round(), start.round()), end_step, mixture(len(shape.steps), seed)
    )


def targets(count: int = 2, height: int = 7, width: int = 5, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    scale = np.geomspace(40, 0.1, SHAPE.channels)
    drawn = rng.laplace(size=(count, height, width, SHAPE.channels)) * scale
    drawn[0, 0, 0] = 3000  # beyond every table, and what can be held
    return [*drawn.astype(np.float32)]


def code(
    model: gaussian.GaussianPrior, regions: list[np.ndarray], rd_tradeoff: np.ndarray | None = None
) -> list[driver.CodedRegion]:
    def quantise(step: Step, target: np.ndarray, gaussian: Gaussian) -> np.ndarray:
        channels = step.positions[0][-1]
        return gaussian.quantise(target, None if rd_tradeoff is None else rd_tradeoff[channels])

    return driver.encode(model, [{"y": region} for region in regions], INDEX, quantise)


def read(
    model: gaussian.GaussianPrior, payloads: list[bytes], slices: int | None = None
) -> list[np.ndarray | None]:
    known = [{"y": np.zeros((7, 5, SHAPE.channels), np.int16)} for _ in payloads]
    last = None if slices is None else SHAPE.slices[slices - 1].stop
    until = None if last is None else lambda step: step.positions[0][-1].stop > last
    sound = driver.decode(model, payloads, known, INDEX, until)
    return [one["y"] if fine else None for one, fine in zip(known, sound, strict=True)]


def draw(
    model: gaussian.GaussianPrior, seed: tuple[int, int], known: np.ndarray | None = None, kept: int = 0
) -> np.ndarray:
    before = np.zeros((6, 5, SHAPE.channels), np.int16) if known is None else known
    return driver.sample(model, [{"y": before}], {"y": kept}, [seed], INDEX)[0]["y"]


# the walk


def test_steps_visit_every_latent_once() -> None:
    for height, width in ((1, 1), (2, 3), (5, 8)):
        seen = np.zeros((height, width, SHAPE.channels), int)
        for step in prior().scan([{"y": seen}], INDEX).steps:
            seen[step.positions[0]] += 1
        assert (seen == 1).all()


def test_an_expectation_never_sees_its_own_latents_or_later_ones() -> None:
    model = prior()
    first, second = targets(1, seed=1)[0], targets(1, seed=2)[0]
    steps = [step.positions[0] for step in model.scan([{"y": first}], INDEX).steps]
    for change in range(len(steps)):
        mixed = first.copy()
        for later in steps[change:]:
            mixed[later] = second[later]
        a, b = expectations(model, first), expectations(model, mixed)
        for number in range(change + 1):
            assert all(np.array_equal(x, y) for x, y in zip(a[number], b[number], strict=True)), number


def expectations(model: gaussian.GaussianPrior, target: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    known = np.zeros(target.shape, np.int16)
    scan, found = model.scan([{"y": known}], INDEX), []
    for step in scan.steps:
        (expected,) = scan.models(step)
        found.append((expected.means, expected.scale_indexes))
        known[step.positions[0]] = np.clip(np.rint(16 * target[step.positions[0]]), -30_000, 30_000)
    return found


@pytest.mark.parametrize("trade", [None, np.full(SHAPE.channels, 5, np.float32)])
def test_what_is_coded_is_read(trade: np.ndarray | None) -> None:
    model = prior()
    regions = code(model, targets(3), trade)
    decoded = read(model, [r.payload for r in regions])
    for region, latents, target in zip(regions, decoded, targets(3), strict=True):
        assert latents is not None and np.array_equal(latents, region.symbols["y"])
        assert abs(8 * len(region.payload) - region.bits) < 70
        inside = np.abs(target) < 1900
        if trade is None:
            error = np.abs(region.symbols["y"] / 16 - target)[inside]
            # But for symbols that are not written, since their Gaussian is so narrow.
            assert (error <= 0.5 + 1 / 16).mean() > 0.9


@pytest.mark.parametrize("trade", [None, np.full(SHAPE.channels, 5, np.float32)])
def test_steps_are_finer_at_the_ends_of_regions(trade: np.ndarray | None) -> None:
    same, finer = (prior(0, replace(SHAPE, levels=1), step) for step in (16, 12))
    coarse, fine = (code(model, targets(3), trade) for model in (same, finer))
    decoded = read(finer, [region.payload for region in fine])
    assert all(np.array_equal(d, r.symbols["y"]) for d, r in zip(decoded, fine, strict=True))
    end = np.ones((7, 5), bool)
    end[1:-1, 1:-1] = False
    errors = []
    for regions in (coarse, fine):
        symbols = np.stack([region.symbols["y"] for region in regions])
        error = np.abs(symbols / 16 - np.stack(targets(3)))[1:, ..., :6]  # of the first slice, all written
        errors.append((np.square(error[:, end]).mean(), np.square(error[:, ~end]).mean()))
        assert trade is not None or error[:, end].max() <= (0.5 + 1 / 32) * (1 if regions is coarse else 0.75)
    assert errors[1][0] < 0.75 * errors[0][0]
    assert errors[1][1] == pytest.approx(errors[0][1], rel=0.3), "inside, steps are the same"
    assert all(8 * len(f.payload) > 8 * len(c.payload) for c, f in zip(coarse, fine, strict=True))


def test_steps_are_equal_at_high_qualities() -> None:
    known = np.zeros((7, 5, SHAPE.channels), np.int16)
    for index, units in ((159, {12, 16}), (160, {16})):
        scan = prior(end_step=12).scan([{"y": known}], index)
        found = [{*next(iter(scan.models(step))).units.ravel().tolist()} for step in scan.steps]
        assert set.union(*found[: SHAPE.phases(0)]) == units
        assert all(later == {16} for later in found[SHAPE.phases(0) :])


def test_dtypes_threads_and_batches_give_the_same_bytes() -> None:
    model = prior()
    whole = [r.payload for r in code(model, targets(3))]
    wide = model.with_dtype(torch.float64)
    assert [r.payload for r in code(wide, targets(3))] == whole
    assert [code(model, [t])[0].payload for t in targets(3)] == whole
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        assert [r.payload for r in code(model, targets(3))] == whole
    finally:
        torch.set_num_threads(threads)
    assert zlib.crc32(b"".join(whole)) == 2602461435


def test_regions_of_one_size_are_batched() -> None:
    shapes = [(4, 4)] * 9 + [(4, 3)] * 2 + [(4, 4)]
    assert prior().batches(shapes) == [[*range(8)], [8, 11], [9, 10]]
    assert prior().batches([]) == []


@pytest.mark.parametrize(("end_step", "levels"), [(16, 1), (12, 2), (8, 3)])
def test_numpy_gives_the_same_expectations(end_step: int, levels: int) -> None:
    """The network once more, in 40 lines of int64."""
    model, target = prior(0, replace(SHAPE, levels=levels), end_step), targets(1)[0]
    ours = expectations(model, target)
    theirs = reference(model, target)
    for (mean, width), (mean_again, width_again) in zip(ours, theirs, strict=True):
        assert np.array_equal(mean, mean_again) and np.array_equal(width, width_again)


def reference(model: gaussian.GaussianPrior, target: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    height, width, channels = target.shape
    powers = [round(2 ** (14 + f / 16)) for f in range(16)]
    exponents = [
        (int(a) + int(b) * INDEX) >> 16
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

    def window(x: np.ndarray, reach: int, centre: bool, spacing: int = 1) -> np.ndarray:
        reach *= spacing
        padded = np.pad(x.reshape(height, width, -1), ((reach, reach), (reach, reach), (0, 0)))
        size = range(0, 2 * reach + 1, spacing)
        parts = [
            padded[i : i + height, j : j + width]
            for i in size
            for j in size
            if centre or (i, j) != (reach, reach)
        ]
        return np.concatenate(parts, 2).reshape(height * width, -1)

    inputs = [np.full((height * width, 1), (INDEX - 128) // 2)]
    flat, found = target.reshape(-1, channels), []
    places = [(row, column) for row in range(height) for column in range(width)]
    for s, part in enumerate(model.shape.slices):
        x = layer(f"{s}_first", np.concatenate(inputs, 1))
        for n in range(model.shape.blocks if s else 0):
            inner = np.clip(layer(f"{s}_spatial{n}", window(active(x), 1, True)), 0, 127)
            x = summed(x, layer(f"{s}_pointwise{n}", inner))
        count = part.stop - part.start
        told = np.zeros((height * width, 2 * count), np.int64)
        near = np.zeros((height * width, len(model.arrays[f"{s}_near.bias"])), np.int64)
        levels = model.shape.levels
        for p in range(2 if s else 1 + 2 * levels):
            each = [(row + column) % 2 if s else first_phase(row, column, levels) for row, column in places]
            where, y = np.flatnonzero(np.array(each) == p), x
            if p:
                spacing = 1 if s else 2 ** (levels - (p + 1) // 2)
                y = summed(y, layer(f"{s}_around{p}", window(near, 1 if s else 2, False, spacing)))
                y = summed(y, layer(f"{s}_contract{p}", np.clip(layer(f"{s}_expand{p}", active(y)), 0, 127)))
            out = np.clip(layer(f"{s}_head{p}", active(y[where])), -(2**15), 2**15)
            mean = np.stack([scaled(out[:, c], exponents[part.start + c], 4) for c in range(count)], 1)
            log = out[:, count:] + 16 * np.array(exponents[part]) + 24 + 53 * 16
            end = np.ones((height, width), bool)
            end[1:-1, 1:-1] = False
            log += round(256 * math.log2(16 / model.end_step)) * end.reshape(-1, 1)[where] * (s == 0)
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


def first_phase(row: int, column: int, levels: int) -> int:
    """The phase of a position in the first slice, as FORMAT-priors.md has it."""
    both = row | column
    divisor = both & -both  # the largest power of two that divides row and column
    if not both or divisor >= 2**levels:
        return 0
    odd = row // divisor % 2 and column // divisor % 2
    return 2 * (levels - divisor.bit_length() + 1) - bool(odd)


def test_training_sees_what_coding_does() -> None:
    """The walk on real numbers, which training has, gives the integers over their powers of two."""
    torch.manual_seed(3)
    layers = context.layers_in_training(SHAPE)
    with torch.no_grad():
        for parameter in layers.parameters():
            parameter.mul_(1.5).add_(0.2 * torch.randn_like(parameter))
    line = torch.zeros(SHAPE.channels), torch.zeros(SHAPE.channels)
    model = gaussian.export(dict(layers.items()), SHAPE, line, 16, plain(len(SHAPE.steps)))
    told = torch.full((1, 1), -3.0)
    whole = context.ContextModel(SHAPE, model.layers, context.Integer(), (1, 6, 5), told)
    real = context.ContextModel(SHAPE, dict(layers.items()), context.FakeQuantized(), (1, 6, 5), told / 16)
    for s, p in SHAPE.steps:
        with torch.inference_mode():
            a, b = whole.params(s, p), real.params(s, p)
            assert torch.equal(a / 2**context.HEAD_BITS, b)
            features = torch.randint(-127, 128, (len(a), a.shape[1])).float()
            whole.update(s, p, features.clone())
            real.update(s, p, features / 16)


def test_only_the_first_slices_can_be_read() -> None:
    model = prior()
    (region,) = code(model, targets(1))
    (first,) = read(model, [region.payload], slices=1)
    assert first is not None
    assert np.array_equal(first[..., :16], region.symbols["y"][..., :16]) and not first[..., 16:].any()


def test_damage_is_noticed_or_gives_other_latents() -> None:
    model = prior()
    (region,) = code(model, targets(1))
    for at in range(0, len(region.payload), 7):
        broken = bytearray(region.payload)
        broken[at] ^= 0x40
        (latents,) = read(model, [bytes(broken)])
        assert latents is None or not np.array_equal(latents, region.symbols["y"])
    longer = [region.payload + bytes(range(1, 13)), b"abc"]
    assert all(latents is None for latents in read(model, longer))


def test_draws_are_the_same_for_a_seed() -> None:
    model = prior()
    drawn = draw(model, (4, 0))
    assert np.array_equal(drawn, draw(model, (4, 0)))
    assert not np.array_equal(drawn, draw(model, (5, 0)))
    again = draw(model, (5, 0), known=drawn, kept=2)
    assert np.array_equal(again[:2], drawn[:2]) and not np.array_equal(again[2:], drawn[2:])
    narrow = draw(model.reshaped(1 / 16, None), (4, 0))
    assert np.abs(narrow).mean() < np.abs(drawn).mean()
    with pytest.raises(UsageError, match="top-k"):
        model.reshaped(1.0, 3)


def test_a_prior_that_does_not_fit_is_refused() -> None:
    arrays = dict(prior().arrays)
    with pytest.raises(ModelError, match="rise"):
        gaussian.GaussianPrior({n: a for n, a in arrays.items() if n != "rise"}, shape=SHAPE)
    with pytest.raises(ModelError, match="1_first"):
        gaussian.GaussianPrior({n: a for n, a in arrays.items() if not n.startswith("1_first")}, shape=SHAPE)
    with pytest.raises(ModelError, match="of a prior is"):
        gaussian.GaussianPrior(arrays, shape=replace(SHAPE, hidden=9))


def test_exactness_is_checked_at_export() -> None:
    layers = context.layers_in_training(Shape(20, 600, 10, 1, 12))
    with torch.no_grad():
        layers["1_spatial0"].weight.fill_(1.0)
    with pytest.raises(ModelError, match="exact"):
        layers["1_spatial0"].export()
    assert exact.EXACT == 2**24
