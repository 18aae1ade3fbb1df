import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_plane import compress, cost_bits, decompress, draw
from vqcodec.errors import DamagedError, ModelError
from vqcodec.priors.static import TABLE_TOTAL, StaticPrior, counts, fit

MODERATE = settings(derandomize=True, deadline=None, database=None, max_examples=100)


def random_prior(rng, levels=512, class_count=4, sharpness=0.1):
    classes = rng.integers(0, class_count, levels).astype(np.uint8)
    weights = rng.dirichlet(np.full(levels, sharpness), size=(class_count + 1, class_count + 1))
    return StaticPrior(fit((weights * 10_000).astype(np.int64)), classes)


def sample(prior, shapes):
    """Codes as likely as the prior says."""
    seeds = [(0, number) for number in range(len(shapes))]
    return draw(prior, [np.zeros(shape, np.int32) for shape in shapes], 0, seeds)


def reference_cost(prior, codes):
    """Code by code in raster order, straight from the tables."""
    outside, bits = prior.class_count, 0.0
    for i, j in np.ndindex(*codes.shape):
        left = prior.classes[codes[i, j - 1]] if j else outside
        upper = prior.classes[codes[i - 1, j]] if i else outside
        bits -= math.log2((int(prior.tables[left, upper, codes[i, j]]) + 1) / TABLE_TOTAL)
    return bits


@MODERATE
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), max_size=5),
    st.sampled_from([2, 3, 17, 512]),
    st.integers(1, 5),
    st.sampled_from([0.01, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_round_trip_and_wavefront_equals_raster_order(shapes, levels, class_count, sharpness, seed):
    rng = np.random.default_rng(seed)
    prior = random_prior(rng, levels, class_count, sharpness)
    regions = [rng.integers(0, levels, shape, dtype=np.int32) for shape in shapes]
    payloads = compress(prior, regions)
    found = decompress(prior, payloads, shapes)
    for region, codes in zip(regions, found, strict=True):
        assert codes.dtype == np.int32
        assert np.array_equal(codes, region)
    assert payloads == [compress(prior, [region])[0] for region in regions], "regions do not see each other"
    expected = sum(reference_cost(prior, region) for region in regions)
    assert cost_bits(prior, regions) == pytest.approx(expected)


def reference_cost_of_sequence(prior, codes):
    """The tables by the last code and the one before it."""
    kinds = [prior.class_count, prior.class_count, *prior.classes[codes]]
    return -sum(
        math.log2((int(prior.tables[kinds[t + 1], kinds[t], code]) + 1) / TABLE_TOTAL)
        for t, code in enumerate(codes)
    )


@MODERATE
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=6),
    st.sampled_from([2, 3, 17, 512]),
    st.integers(1, 5),
    st.sampled_from([0.01, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_sequences_of_unequal_length(lengths, levels, class_count, sharpness, seed):
    rng = np.random.default_rng(seed)
    prior = random_prior(rng, levels, class_count, sharpness)
    regions = [rng.integers(0, levels, length, dtype=np.int32) for length in lengths]
    payloads = compress(prior, regions)
    found = decompress(prior, payloads, [(length,) for length in lengths])
    for region, codes in zip(regions, found, strict=True):
        assert codes.dtype == np.int32
        assert np.array_equal(codes, region)
    assert payloads == [compress(prior, [region])[0] for region in regions], "regions do not see each other"
    expected = sum(reference_cost_of_sequence(prior, region) for region in regions)
    assert cost_bits(prior, regions) == pytest.approx(expected)
    # What is counted is what a walk through the codes asks for.
    counted = counts(regions, prior.classes, class_count)
    assert counted.sum() == sum(lengths)
    frequencies = prior.tables.astype(np.int64) + 1
    assert -(counted * np.log2(frequencies / TABLE_TOTAL)).sum() == pytest.approx(expected)


def test_every_code_of_a_sequence_is_visited_once():
    shapes = [(1,), (7,), (5,)]
    visits = [np.zeros(shape, np.int32) for shape in shapes]
    known = [{"codes": np.zeros(shape, np.int32)} for shape in shapes]
    scan = random_prior(np.random.default_rng(2)).scan(known, 0)
    assert len([*scan.steps]) == 7
    for step in scan.steps:
        models = list(scan.models(step))
        for count, (position,), model in zip(visits, step.positions, models, strict=True):
            assert len(position) == len(model.frequencies) == (step.number < len(count))
            count[position] += 1
    assert all((count == 1).all() for count in visits)


def test_sequences_see_two_codes_back_and_no_further():
    prior = random_prior(np.random.default_rng(3), levels=9, class_count=9, sharpness=1.0)
    prior = StaticPrior(prior.tables, np.arange(9, dtype=np.uint8))
    first = np.random.default_rng(4).integers(0, 9, 30, dtype=np.int32)
    second = (first + 1) % 9
    second[10:20] = first[10:20]

    def bits(codes, at):
        return cost_bits(prior, [codes[: at + 1]]) - cost_bits(prior, [codes[:at]])

    for at in range(12, 20):
        assert bits(first, at) == pytest.approx(bits(second, at))
    assert bits(first, 11) != pytest.approx(bits(second, 11)), "the code before the last takes part"


def test_sequences_and_pictures_share_the_tables():
    """A sound's region is no picture's row: there the upper neighbour stays outside."""
    prior = random_prior(np.random.default_rng(3), levels=9)
    codes = np.random.default_rng(4).integers(0, 9, 50, dtype=np.int32)
    assert compress(prior, [codes]) != compress(prior, [codes[None]])
    assert compress(prior, []) == []


def test_size_of_a_sequence_is_what_the_tables_cost():
    prior = random_prior(np.random.default_rng(3), class_count=32)
    shapes = [(2000,), (2000,), (313,), (1,)]
    regions = sample(prior, shapes)
    for region, payload in zip(regions, compress(prior, regions), strict=True):
        ideal = cost_bits(prior, [region]) / 8
        assert ideal - 1 <= len(payload) <= 1.005 * ideal + 8
    assert cost_bits(prior, regions[:1]) < 0.9 * 9 * 2000, "sharp tables save something"


@pytest.mark.parametrize("shape", [(1, 1), (1, 128), (128, 1), (128, 127)])
def test_extreme_shapes(shape):
    rng = np.random.default_rng(1)
    prior = random_prior(rng)
    region = rng.integers(0, 512, shape, dtype=np.int32)
    assert np.array_equal(decompress(prior, compress(prior, [region]), [shape])[0], region)


def test_every_code_is_visited_once():
    shapes = [(1, 1), (7, 3), (3, 7), (5, 5)]
    visits = [np.zeros(shape, np.int32) for shape in shapes]
    known = [{"codes": np.zeros(shape, np.int32)} for shape in shapes]
    scan = random_prior(np.random.default_rng(2)).scan(known, 0)
    for step in scan.steps:
        for count, (rows, columns) in zip(visits, step.positions, strict=True):
            assert (rows + columns == step.number).all()
            count[rows, columns] += 1
    assert all((count == 1).all() for count in visits)


def test_size_is_what_the_tables_cost():
    prior = random_prior(np.random.default_rng(3))
    shapes = [(128, 128), (32, 32), (3, 5)]
    regions = sample(prior, shapes)
    for region, payload in zip(regions, compress(prior, regions), strict=True):
        ideal = cost_bits(prior, [region]) / 8
        assert ideal - 1 <= len(payload) <= 1.005 * ideal + 8


def test_speed_of_a_six_megapixel_picture():
    prior = random_prior(np.random.default_rng(4), class_count=32)
    shapes = [(128, 128)] * 23
    regions = sample(prior, shapes[:1]) * 23
    started = time.process_time()
    payloads = compress(prior, regions)
    encoded = time.process_time()
    found = decompress(prior, payloads, shapes)
    decoded = time.process_time()
    assert all(np.array_equal(a, b) for a, b in zip(regions, found, strict=True))
    # About half a second each; the bound is for slow and busy machines.
    assert encoded - started < 5
    assert decoded - encoded < 5


@MODERATE
@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=3),
    st.sampled_from([(9, 4), (36,)]),
    st.integers(0, 2**32 - 1),
)
def test_garbage_gives_codes_in_range_or_a_damaged_error(payloads, shape, seed):
    prior = random_prior(np.random.default_rng(seed), levels=7)
    try:
        found = decompress(prior, payloads, [shape] * len(payloads))
    except DamagedError:
        return
    assert all(codes.shape == shape and 0 <= codes.min() <= codes.max() < 7 for codes in found)


def test_flipped_payloads_never_do_worse():
    prior = random_prior(np.random.default_rng(5))
    regions = sample(prior, [(20, 20)])
    payload = compress(prior, regions)[0]
    for at in range(len(payload)):
        broken = payload[:at] + bytes((payload[at] ^ 0x40,)) + payload[at + 1 :]
        try:
            codes = decompress(prior, [broken], [(20, 20)])[0]
        except DamagedError:
            continue
        assert 0 <= codes.min() <= codes.max() < 512


def test_counts():
    classes = np.array([0, 1, 1], np.uint8)
    counted = counts([np.array([[0, 1], [2, 2]], np.int32), np.array([[2]], np.int32)], classes, 2)
    expected = np.zeros((3, 3, 3), np.int64)
    expected[2, 2, 0] += 1  # corner of the first region
    expected[0, 2, 1] += 1  # right of code 0
    expected[2, 0, 2] += 1  # below code 0
    expected[1, 1, 2] += 1  # left is code 2, above is code 1
    expected[2, 2, 2] += 1  # the second region
    assert np.array_equal(counted, expected)


def test_counts_of_sequences():
    classes = np.array([0, 1, 1], np.uint8)
    counted = counts([np.array([0, 1, 2], np.int32), np.array([2], np.int32)], classes, 2)
    expected = np.zeros((3, 3, 3), np.int64)
    expected[2, 2, 0] += 1  # nothing before the first
    expected[0, 2, 1] += 1  # after code 0, and nothing before that
    expected[1, 0, 2] += 1  # after code 1, and code 0 before that
    expected[2, 2, 2] += 1  # the second region
    assert np.array_equal(counted, expected)


@MODERATE
@given(st.integers(2, 600), st.integers(1, 3), st.integers(0, 2**40), st.integers(0, 2**32 - 1))
def test_fitted_tables_are_complete(levels, class_count, scale, seed):
    rng = np.random.default_rng(seed)
    shape = (class_count + 1, class_count + 1, levels)
    counted = (rng.random(shape) ** 30 * scale).astype(np.int64)
    tables = fit(counted)
    assert tables.dtype == np.uint16
    assert (tables.sum(2, dtype=np.int64) == TABLE_TOTAL - levels).all()


def test_fit_is_smoothed_largest_remainder():
    counted = np.zeros((2, 2, 3), np.int64)
    counted[0, 0] = [900, 100, 0]
    order0 = np.array([900.5, 100.5, 0.5]) / 1001.5
    frequencies = fit(counted, weight=10).astype(np.int64) + 1
    expected = (counted[0, 0] + 10 * order0) / 1010 * TABLE_TOTAL
    assert np.abs(frequencies[0, 0] - expected).max() < 1
    assert np.abs(frequencies[1, 1] - order0 * TABLE_TOTAL).max() < 1, "an empty table is the order-0 table"


def test_fit_keeps_every_code_possible():
    counted = np.zeros((2, 2, 512), np.int64)
    counted[..., 7] = 10**12
    frequencies = fit(counted).astype(np.int64) + 1
    assert frequencies.min() == 1
    assert frequencies[0, 0, 7] == TABLE_TOTAL - 511


def test_fitted_tables_approach_the_entropy():
    """What the floor of one, 16 bits and smoothing cost together, on plenty of codes of one source."""
    rng = np.random.default_rng(7)
    weights = rng.dirichlet(np.full(512, 0.3))
    regions = [rng.choice(512, (128, 128), p=weights).astype(np.int32) for _ in range(8)]
    classes = np.zeros(512, np.uint8)
    prior = StaticPrior(fit(counts(regions, classes, 1)), classes)
    histogram = np.bincount(np.concatenate(regions, axis=None), minlength=512) / (8 * 128 * 128)
    entropy = -(histogram[histogram > 0] * np.log2(histogram[histogram > 0])).sum()
    bits = cost_bits(prior, regions) / (8 * 128 * 128)
    assert bits == pytest.approx(entropy, abs=0.02)


def test_tensors_round_trip():
    prior = random_prior(np.random.default_rng(8))
    tensors = prior.to_tensors()
    assert set(tensors) == {"prior.tables", "prior.classes"}
    again = StaticPrior.from_tensors({**tensors, "decoder.weight": np.zeros(1)})
    region = np.arange(20, dtype=np.int32).reshape(4, 5)
    assert compress(again, [region]) == compress(prior, [region])


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t.pop("prior.tables"),
        lambda t: t.pop("prior.classes"),
        lambda t: t.update({"prior.tables": t["prior.tables"].astype(np.int32)}),
        lambda t: t.update({"prior.tables": t["prior.tables"][:-1]}),
        lambda t: t.update({"prior.tables": t["prior.tables"] + np.uint16(1)}),
        lambda t: t.update({"prior.tables": t["prior.tables"][0]}),
        lambda t: t.update(
            {"prior.tables": t["prior.tables"][:, :, :0], "prior.classes": np.zeros(0, np.uint8)}
        ),
        lambda t: t.update({"prior.tables": t["prior.tables"][:0, :0]}),
        lambda t: t.update({"prior.classes": t["prior.classes"][:-1]}),
        lambda t: t.update({"prior.classes": t["prior.classes"] + np.uint8(4)}),
    ],
)
def test_foreign_tensors_are_refused(change):
    tensors = random_prior(np.random.default_rng(9)).to_tensors()
    change(tensors)
    with pytest.raises(ModelError):
        StaticPrior.from_tensors(tensors)
