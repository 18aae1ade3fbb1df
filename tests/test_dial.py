"""Codecs with a dial, end to end: every rate out of one model, to a goal, whatever the picture."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import vqcodec
from conftest import draw
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from vqcodec import media, pipeline, training, weights
from vqcodec.bitstream import container
from vqcodec.bitstream.quality import DIAL, place_of, quality_of
from vqcodec.coding import dial
from vqcodec.errors import DamagedError, DamageWarning, ModelError, TargetError, UsageError, VersionError
from vqcodec.metrics.image import psnr
from vqcodec.models.points import Point
from vqcodec.pipeline import encoding as streams
from vqcodec.pipeline import rate_control as goals
from vqcodec.pipeline import sampling
from vqcodec.transform import tiling

SMALL = {
    "ppca-image": {"components": "24", "context_width": "12", "context_hidden": "8", "context_near": "24"},
    "vae-image": {
        "components": "24",
        **{name: "8" for name in ("fine", "fine_hidden", "coarse", "coarse_hidden")},
        **{name: "1" for name in ("encoder_fine", "encoder_coarse", "decoder_fine", "decoder_coarse")},
        "context_width": "12",
        "context_hidden": "8",
        "context_blocks": "1",
        "context_near": "24",
    },
}

Factory = pytest.TempPathFactory


def trained(name: str, photos: Path, output: Path, steps: int = 12) -> training.Run:
    return training.train(
        photos,
        model=name,
        output=output,
        steps=steps,
        batch=2,
        crop=64,
        checkpoint_every=6,
        overrides=SMALL[name],
    )


@pytest.fixture(scope="module", params=list(SMALL))
def run(
    request: pytest.FixtureRequest, photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> training.Run:
    return trained(request.param, photos, tmp_path_factory.mktemp("runs") / "dialled")


@pytest.fixture
def model(run: training.Run) -> str:
    return str(run.best)


@pytest.fixture
def picture() -> media.Image:
    return media.Image(draw(150, 130, 7), source="PNG")


def test_training_ends_with_measured_points(run: training.Run) -> None:
    points = weights.points(run.card)
    assert [point["quality"] for point in points] == [1, 2, 3, 4, 5]
    rates = [point["bpp"] for point in points]
    assert rates == sorted(rates) and rates[0] < rates[-1] / (4 if run.card["method"] == "pPCA" else 3)
    assert run.card["measured"]["validation"]["payload_over_ideal"] < 1.02
    assert "learned" not in run.card, "its prior is trained with it"


def test_what_is_written_is_read(model: str, picture: media.Image) -> None:
    sizes, figures = [], []
    for quality in (1, 2.5, 5):
        encoded = pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, quality=quality))
        decoded = pipeline.decode(encoded.data, model=model)
        assert isinstance(decoded, media.Image) and decoded.samples.shape == picture.samples.shape
        assert decoded.source == "PNG"
        assert encoded.quality == pytest.approx(quality, abs=0.01)
        assert pipeline.verify(encoded) == psnr(decoded.samples, picture.samples)
        sizes.append(len(encoded.data))
        figures.append(psnr(decoded.samples, picture.samples))
        assert 8 * vqcodec.info(encoded.data).code_bytes - encoded.estimate_bits < 100
    assert sizes == sorted(sizes) and figures == sorted(figures) and figures[-1] > figures[0] + 3


def test_default_is_the_middle_and_the_ends_are_refused(model: str, picture: media.Image) -> None:
    assert pipeline.encode_file(picture, pipeline.EncodeOptions(model=model)).quality == pytest.approx(
        3, abs=0.01
    )
    for quality in (0.5, 5.01):
        with pytest.raises(UsageError, match="no quality"):
            pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, quality=quality))
    assert [place_of(q) for q in (1, 5)] == [0, DIAL] and quality_of(DIAL) == 5


def test_effort_trades_error_for_bits(model: str, picture: media.Image) -> None:
    """Of a transform that keeps errors as they are: at the model's price of an error, the sum falls."""
    codec = weights.load(model, "cpu")
    point, geometry = Point(codec, 120), container.ImageGeometry(150, 130, 3, 16)
    targets = dial.analyse(picture.samples, point)
    costs = []
    for effort in (0, 1):
        written = dial.write(targets, point, geometry, effort=effort)
        decoded = dial.synthesise(dial.Read(written.latents), point, geometry)
        error = np.square(np.subtract(decoded, picture.samples, dtype=np.float64)).mean()
        costs.append(written.bits / (150 * 130) + point.multiplier * error)
    if codec.method == "pPCA":
        assert costs[1] < costs[0]
    else:
        assert costs[1] == costs[0], "its encoder has learned what a search would find"


def test_blocks_leave_no_seam(model: str) -> None:
    point = Point(weights.load(model, "cpu"), 128)
    pixels = draw(300, 340, 3)
    geometry = container.ImageGeometry(300, 340, 3, 16)
    area = tiling.AREA
    whole = dial.analyse(pixels, point)
    latents = dial.write(whole, point, geometry).latents
    picture = dial.synthesise(dial.Read(latents), point, geometry)
    try:
        tiling.AREA = 16 * 40
        assert len(tiling.blocks(*geometry.grid, point.halo, tiling.area_for(16))) > 4
        assert np.abs(dial.analyse(pixels, point) - whole).max() < 1e-3 * np.abs(whole).max()
        again = dial.synthesise(dial.Read(latents), point, geometry)
    finally:
        tiling.AREA = area
    assert np.abs(again.astype(int) - picture).max() <= 1


# goals


@pytest.mark.parametrize("share", [0.1, 0.3, 0.7])
def test_a_target_size_is_kept_from_below(model: str, share: float) -> None:
    picture = media.Image(draw(400, 300, 1))
    least, most = (len(pipeline.encode(picture, model=model, quality=q)) for q in (1, 5))
    target = round(least + share * (most - least))
    size = len(pipeline.encode(picture, model=model, target_size=target))
    assert 0.96 * target < size <= target
    bpp = 8 * target / (400 * 300)
    assert len(pipeline.encode(picture, model=model, bpp=bpp)) <= target


def test_a_psnr_is_reached(model: str, picture: media.Image) -> None:
    low, high = (
        pipeline.verify(pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, quality=q)))
        for q in (1, 4)
    )
    target = (low + high) / 2
    encoded = pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, psnr=target))
    assert target <= pipeline.verify(encoded) < target + 0.5


def test_goals_out_of_reach(model: str, picture: media.Image) -> None:
    with pytest.raises(TargetError, match="smallest is .* bytes, target 60"):
        pipeline.encode(picture, model=model, target_size=60)
    with pytest.raises(TargetError, match="best is"):
        pipeline.encode(picture, model=model, psnr=120)


def test_with_room_enough_pixels_are_kept(model: str, picture: media.Image) -> None:
    data = pipeline.encode(picture, model=model, target_size=10**6)
    assert np.array_equal(pipeline.decode(data, model=model).samples, picture.samples)


@given(st.lists(st.floats(0.01, 3), min_size=DIAL + 1, max_size=DIAL + 1), st.floats(-1, 800), st.booleans())
@settings(max_examples=60, deadline=None)
def test_search_finds_the_edge(steps: list[float], goal: float, upwards: bool) -> None:
    figures = np.cumsum(steps)
    asked: list[int] = []

    def measure(place: int) -> float:
        asked.append(place)
        return float(figures[place])

    found = goals.search(measure, goal, 1.0, 0.0, upwards=upwards)
    fits = figures >= goal if upwards else figures <= goal
    expected = (int(fits.argmax()) if upwards else int(fits.sum()) - 1) if fits.any() else None
    assert found == expected
    assert len(asked) == len(set(asked)) <= goals.TRIALS + 9


# pictures of all kinds


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (17, 1), (16, 16), (33, 48)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_never_larger_than_their_pixels(
    model: str, size: tuple[int, int], channels: int
) -> None:
    picture = media.Image(draw(*size, 2)[:, :, :channels])
    for quality in (1, 5):
        data = pipeline.encode(picture, model=model, quality=quality)
        told = vqcodec.info(data)
        assert told.code_bytes <= picture.samples.nbytes
        decoded = pipeline.decode(data, model=model)
        assert decoded.samples.shape == picture.samples.shape
        if container.RAW in told.priors:
            assert np.array_equal(decoded.samples, picture.samples)


def test_flat_pictures_and_graphics_are_small(model: str) -> None:
    flat = media.Image(np.full((600, 700, 3), 77, np.uint8))
    data = pipeline.encode(flat, model=model)
    assert len(data) < flat.samples.nbytes / 900
    assert np.abs(pipeline.decode(data, model=model).samples.astype(int) - 77).max() <= 2
    text = np.full((512, 512, 3), 255, np.uint8)
    text[40:470:8, 30:480:3] = 0
    data = pipeline.encode(media.Image(text), model=model, quality=5)
    assert np.array_equal(pipeline.decode(data, model=model).samples, text), "deflated pixels are smaller"


def test_metadata_and_alpha_are_kept(model: str) -> None:
    alpha = np.arange(130 * 150, dtype=np.uint8).reshape(130, 150)
    picture = media.Image(draw(150, 130, 7), alpha, icc=b"profile", xmp=b"<x/>")
    decoded = pipeline.decode(pipeline.encode(picture, model=model), model=model)
    assert np.array_equal(decoded.alpha, alpha) and (decoded.icc, decoded.xmp) == (b"profile", b"<x/>")


def test_preview_is_an_eighth(model: str) -> None:
    pixels = draw(530, 140, 4)
    for quality, tolerance in ((5, 12), (3, 25)):
        data = pipeline.encode(media.Image(pixels), model=model, quality=quality)
        small = pipeline.decode(data, model=model, preview=True).samples
        assert small.shape == (18, 67, 3)
        means = pixels[:136, :528].reshape(17, 8, 66, 8, 3).mean((1, 3))
        assert np.abs(small[:17, :66] - means).mean() < tolerance
    tiny = pipeline.encode(media.Image(pixels[:9, :3]), model=model)
    assert pipeline.decode(tiny, model=model, preview=True).samples.shape == (2, 1, 3)


# damage


def test_damage_stays_in_its_region(model: str) -> None:
    picture = media.Image(draw(1100, 300, 5))
    data = bytearray(pipeline.encode(picture, model=model))
    whole = pipeline.decode(bytes(data), model=model).samples
    info = vqcodec.info(bytes(data))
    assert info.chunks == 3
    data[info.header_bytes + 10] ^= 4
    with pytest.raises(DamagedError, match="chunk 1 of 3"):
        pipeline.decode(bytes(data), model=model)
    with pytest.warns(DamageWarning, match="chunk 1 of 3"):
        saved = pipeline.decode(bytes(data), model=model, salvage=True).samples
    halo = 16 * weights.load(model, "cpu").halo
    assert np.array_equal(saved[:, 512 + halo :], whole[:, 512 + halo :])
    grey = saved[100:200, 100:400].astype(int)
    assert abs(grey.mean() - 128) < 30


def test_chunks_that_no_encoder_writes(model: str, picture: media.Image) -> None:
    stream = container.parse(pipeline.encode(picture, model=model))
    for chunk in (
        container.Chunk(container.LEARNED, b"abc"),
        container.Chunk(container.RAW, b"abc"),
        container.Chunk(container.RAW, bytes(150 * 130 * 3 - 1)),
    ):
        data = container.pack(dataclasses.replace(stream, chunks=[chunk]))
        with pytest.raises(DamagedError, match="chunk 1 of 1"):
            pipeline.decode(data, model=model)
        with pytest.warns(DamageWarning):
            assert pipeline.decode(data, model=model, salvage=True).samples.shape == (130, 150, 3)
    with pytest.raises(vqcodec.errors.ModelError, match="a prior that"):
        pipeline.decode(
            container.pack(dataclasses.replace(stream, chunks=[container.Chunk(1, b"abcd")])), model=model
        )
    for settings_ in (b"", b"\1\2"):
        with pytest.raises(VersionError, match="settings"):
            pipeline.decode(container.pack(dataclasses.replace(stream, settings=settings_)), model=model)


def test_reconstruction_is_compared_with_what_was_coded(model: str, picture: media.Image) -> None:
    encoded = pipeline.encode_file(picture, pipeline.EncodeOptions(model=model))
    other = dataclasses.replace(encoded, codes=encoded.codes + 16)
    with pytest.raises(DamagedError, match="does not decode"):
        streams.reconstruct(other)


# drawing


def test_samples_are_the_same_for_a_seed(model: str) -> None:
    first = sampling.sample(model, count=2, size=(70, 40), seed=3)
    again = sampling.sample(model, count=2, size=(70, 40), seed=3)
    assert [one.samples.shape for one in first] == [(40, 70, 3)] * 2
    assert all(np.array_equal(a.samples, b.samples) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0].samples, first[1].samples)
    with pytest.raises(UsageError, match="top-k"):
        sampling.sample(model, top_k=5)


def test_a_picture_can_be_continued(model: str) -> None:
    data = pipeline.encode(media.Image(draw(160, 160, 1)), model=model)
    whole = pipeline.decode(data, model=model).samples
    (drawn,) = sampling.sample(model, continued=data, fraction=0.5)
    assert np.array_equal(sampling.sample(model, continued=data, fraction=1)[0].samples, whole)
    rows = 80 - 16 * weights.load(model, "cpu").halo
    assert np.array_equal(drawn.samples[: max(rows, 0)], whole[: max(rows, 0)])
    assert not np.array_equal(drawn.samples, whole)


# training


def test_training_is_resumed_exactly(photos: Path, tmp_path: Path) -> None:
    """Weights, optimiser, places on the dial and noise: the same 12 steps, once with an interruption."""
    whole = trained("vae-image", photos, tmp_path / "whole")
    cut = tmp_path / "cut"
    shutil.copytree(whole.folder, cut)
    last = cut / "checkpoints" / "step-000000012.safetensors"
    last.unlink()
    training.train(resume=cut)
    with safe_open(last, "pt") as ours, safe_open(whole.folder / "checkpoints" / last.name, "pt") as theirs:
        assert set(ours.keys()) == set(theirs.keys())
        assert all(torch.equal(ours.get_tensor(name), theirs.get_tensor(name)) for name in ours.keys())  # noqa: SIM118


def test_training_goes_on_from_weights(photos: Path, tmp_path: Path, model: str, run: training.Run) -> None:
    name = {"pPCA": "ppca-image", "VAE": "vae-image"}[run.card["method"]]
    before = weights.load(model, "cpu")
    after = training.train(
        photos, model=name, start=model, output=tmp_path / "on", steps=1, batch=2, crop=64, learning_rate=1e-9
    )
    codec = weights.load(after.best, "cpu")
    for layer, arrays in before.learned.layers.items():
        difference = codec.learned.layers[layer].weight.astype(int) - arrays.weight
        assert np.abs(difference).max() <= 1, layer
    with torch.inference_mode():
        place = torch.tensor([100.0])
        samples = torch.randn(1, 3, 32, 32).clamp(-1, 1)
        a, b = (c.transform(samples * 127.5, place) for c in (before, codec))
    assert torch.allclose(a, b, atol=0.5)
    assert len(after.card["training"]["chain"]) == 2


@pytest.mark.parametrize("components", [20, 10])
def test_fewer_channels_begin_as_the_first_of_more(
    photos: Path, tmp_path: Path, model: str, run: training.Run, components: int
) -> None:
    """Whether the last slice is cut or gone, the channels kept are coded as they were, to a rounding."""
    name = {"pPCA": "ppca-image", "VAE": "vae-image"}[run.card["method"]]
    shared = {"output": tmp_path / "on", "steps": 1, "batch": 2, "crop": 64, "learning_rate": 1e-9}
    many = {"components": "25"}
    with pytest.raises(UsageError, match="components is 25, --from has 24"):
        training.train(photos, model=name, start=model, overrides=many, **shared)
    few = {"components": str(components)}
    after = training.train(photos, model=name, start=model, overrides=few, **shared)
    assert after.card["config"] == run.card["config"] | {"components": components}
    before, codec = weights.load(model, "cpu"), weights.load(after.best, "cpu")
    samples, place = torch.from_numpy(draw(64, 64)).permute(2, 0, 1)[None] / 127.5 - 1, torch.tensor([100.0])
    with torch.inference_mode():
        targets = [c.latents(samples, place)[0].permute(1, 2, 0).numpy() for c in (before, codec)]
    kept = np.ascontiguousarray(targets[0][..., :components])
    assert np.allclose(targets[1], kept, atol=0.05)
    ours, all_of_them = (c.learned.code([t], 100)[0] for c, t in ((codec, kept), (before, targets[0])))
    difference = np.abs(ours.latents - all_of_them.latents[..., :components])
    assert difference.max() <= 17 and (difference > 1).mean() < 0.01
    assert ours.bits < all_of_them.bits


# what is refused


@pytest.mark.parametrize("goal", [{"bpp": 1e-9}, {"bpp": 1e-4}, {"target_size": 5}])
def test_goals_of_less_than_a_byte(model: str, picture: media.Image, goal: dict[str, float]) -> None:
    with pytest.raises(TargetError, match="smallest is"):
        pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, **goal))


def test_goals_without_bounds(model: str, picture: media.Image) -> None:
    for name in ("bpp", "psnr", "target_size"):
        for value in (float("inf"), float("nan"), 0, -1):
            with pytest.raises(UsageError, match="above zero"):
                pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, **{name: value}))
    assert len(pipeline.encode(picture, model=model, bpp=1e308)) < picture.samples.nbytes + 60
    for quality in (0, float("nan"), 6):
        with pytest.raises(UsageError, match=r"1 to 5|no quality") as caught:
            pipeline.encode_file(picture, pipeline.EncodeOptions(model=model, quality=quality))
        assert caught.value.hint == "1 to 5, with decimals"


def test_quality_has_as_few_decimals_as_tell_it_apart() -> None:
    assert [quality_of(place_of(q)) for q in (1, 2, 2.5, 3, 3.1, 5)] == [1, 2, 2.5, 3, 3.1, 5]
    assert all(place_of(quality_of(place)) == place for place in range(DIAL + 1))


def test_other_models_and_decoders_are_named(model: str, small: str, picture: media.Image) -> None:
    ours, theirs = (pipeline.encode(picture, model=m) for m in (model, small))
    for data, other in ((ours, small), (theirs, model)):
        with pytest.raises(ModelError, match="needs model"):
            pipeline.decode(data, model=other)
    with pytest.raises(UsageError, match="has no decoder") as caught:
        pipeline.decode(ours, model=model, decoder=small)
    assert caught.value.hint == "leave out --decoder"
    with pytest.raises(UsageError, match="does not decode the codes"):
        pipeline.decode(theirs, model=small, decoder=model)
    with pytest.raises(ModelError, match="no preview"):
        pipeline.decode(theirs, model=small, preview=True)


def test_models_begin_as_their_kind(photos: Path, tmp_path: Path, model: str, small: str) -> None:
    name = {"pPCA": "vae-image", "VAE": "ppca-image"}[weights.load(model, "cpu").method]
    for start in (model, small):
        with pytest.raises(UsageError, match=f"{name} cannot begin as"):
            training.train(photos, model=name, start=start, output=tmp_path / "on", steps=1)


def test_samples_are_bounded(model: str) -> None:
    with pytest.raises(UsageError, match="samples, limit 67,108,864"):
        sampling.sample(model, size=(8193, 8192))
