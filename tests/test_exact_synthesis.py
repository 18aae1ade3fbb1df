"""The synthesis in integers: the pixels of FORMAT-priors.md, however they are computed."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from vqcodec.bitstream.geometry import ImageGeometry
from vqcodec.errors import ModelError
from vqcodec.models import exact_lapped, exact_synthesis
from vqcodec.models.vae import VAE, Config
from vqcodec.priors import exact_convolutions
from vqcodec.priors.base import Array
from vqcodec.priors.exact_convolutions import CARRIERS
from vqcodec.transform import image as image_transform

SETTINGS = Config(
    components=72,
    context_width=8,
    context_hidden=8,
    context_blocks=0,
    context_near=8,
    fine=8,
    fine_hidden=6,
    coarse=12,
    coarse_hidden=5,
    encoder_fine=0,
    encoder_coarse=0,
    decoder_fine=2,
    decoder_coarse=1,
    integer_synthesis=True,
)


@pytest.fixture(scope="module")
def trained() -> VAE:
    """A model whose weights are all at work, before its export."""
    torch.manual_seed(5)
    model = VAE(SETTINGS)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.startswith(("backward_", "decoder.")) and weight.dim() > 1:
                weight.normal_(std=(2 / weight[0].numel()) ** 0.5)
        model.backward_basis.mul_(0.2)
        model.decoder.layer(model.decoder.shape.last).weight.mul_(0.1)
        model.set_moments(torch.tensor([-9.0, 3.3, 20.7]), 400 / torch.arange(1.0, 73) ** 0.9)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model(trained: VAE) -> VAE:
    """The same, in integers."""
    return trained.export()


def some_latents(model: VAE, height: int, width: int, index: int) -> NDArray[np.int16]:
    """Latents like those of a picture, with some far from the mean."""
    generator = np.random.default_rng(7)
    size = model.config.components
    spread = 16 * np.exp2(model.prior.log2_gains(index).numpy() / 16)
    values = generator.laplace(size=(height, width, size)) * spread * 0.7
    values[0, 0, :: size // 5] = 30000
    return np.rint(values).clip(-32767, 32767).astype(np.int16)


def decoded(model: VAE, latents: NDArray[np.int16], index: int, area: int | None = None) -> NDArray[np.uint8]:
    """The pixels as `decode` computes them."""
    geometry = ImageGeometry(16 * latents.shape[1], 16 * latents.shape[0])
    return image_transform.synthesise({"y": latents}, model.at(index), geometry, area=area)


# FORMAT-priors.md, "Synthesis", in numpy


def rne(x: Array) -> Array:
    """Round, halves to even."""
    return np.rint(x)


class Reference:
    """The page's arithmetic, in float64, which holds all its numbers."""

    def __init__(self, arrays: dict[str, Array], start: Array, rise: Array) -> None:
        self.arrays, self.start, self.rise = arrays, start.astype(np.int64), rise.astype(np.int64)

    def pixels(self, v: NDArray[np.int16], q: int) -> NDArray[np.uint8]:
        n = self.normalised(v, q)
        linear = self.linear(n)
        x = self.layer("deep.0", self.signed(n, 8))
        x = self.shuffled(x)
        x = self.blocks(x, "deep", 2, 1)
        features = self.signed(self.shuffled(self.layer("deep.3", self.signed(x, 0.5))), 1)
        height, width = linear.shape[:2]
        plane = np.full((height, width, 1), q >> 1)
        joined = np.concatenate((features, self.signed(linear, 2.0**-10), plane), 2)
        x = self.layer("shallow.0", joined, border=64)
        x = self.blocks(x, "shallow", 1, 2)
        levels = self.layer("shallow.4", self.activation(x)) + linear + np.repeat(self.arrays["mean"], 16)
        whole = rne(levels / 256).clip(0, 255).astype(np.uint8)
        return (
            whole.reshape(height, width, 3, 4, 4).transpose(0, 3, 1, 4, 2).reshape(4 * height, 4 * width, 3)
        )

    def normalised(self, v: NDArray[np.int16], q: int) -> Array:
        exponent = -((self.start + self.rise * q) >> 16)
        table = np.array([round(2 ** (14 + f / 16)) for f in range(16)])
        return v * np.ldexp(table[exponent & 15].astype(np.float64), (exponent >> 4) - 18)

    def linear(self, n: Array) -> Array:
        """[h, w, M] -> [4 h, 4 w, 48], each output by the definition of a transposed convolution."""
        wide, bits = self.arrays["linear.wide"].astype(np.float64), self.arrays["linear.bits"].astype(int)
        narrow, shift = (
            self.arrays["linear.narrow"].astype(np.float64),
            self.arrays["linear.shift"].astype(int),
        )
        count = len(wide)
        x = rne(np.ldexp(n[:, :, :count], 22 - bits)).clip(-(2**28), 2**28)
        known = rne(n[:, :, count:] * 2**7).clip(-(2**19), 2**19).astype(np.int64) + 64 * (1 + 2**7 + 2**14)
        digits = [(known >> 7 * k & 127) - 64 for k in range(3)]
        blocks = rne(self.transposed(x, wide) * 2.0 ** (8 - 22))
        at = [np.arange(blocks.shape[axis]) % 2 for axis in range(2)]
        scale = np.ldexp(1.0, 1 - shift)[:, at[0]][:, :, at[1]].transpose(1, 2, 0)
        for k, digit in enumerate(digits):
            blocks += rne(self.transposed(digit.astype(np.float64), narrow) * scale * 2.0 ** (7 * k))
        blocks = blocks.clip(-(2**22), 2**22)
        height, width, _ = blocks.shape
        samples = blocks.reshape(height, width, 3, 2, 4, 2, 4).transpose(0, 3, 1, 5, 2, 4, 6)
        return samples.reshape(2 * height, 2 * width, 48)

    @staticmethod
    def transposed(x: Array, weight: Array) -> Array:
        height, width, _ = x.shape
        whole = np.zeros((2 * height + 2, 2 * width + 2, weight.shape[1]))
        for i, j in itertools.product(range(4), repeat=2):
            whole[i : i + 2 * height : 2, j : j + 2 * width : 2] += x @ weight[:, :, i, j]
        return whole[1:-1, 1:-1]

    def blocks(self, x: Array, stack: str, first: int, count: int) -> Array:
        for name in (f"{stack}.{first + n}" for n in range(count)):
            hidden = self.activation(self.layer(f"{name}.spatial", self.activation(x)))
            x = x + self.layer(f"{name}.pointwise", hidden)
        return x

    def layer(self, name: str, x: Array, border: int = 0) -> Array:
        weight = self.arrays[f"{name}.weight"].astype(np.float64)
        margin = weight.shape[2] // 2
        padded = np.pad(x, ((margin, margin), (margin, margin), (0, 0)), constant_values=border)
        height, width = x.shape[:2]
        found = np.zeros((height, width, len(weight))) + self.arrays[f"{name}.bias"]
        for i, j in itertools.product(range(weight.shape[2]), repeat=2):
            found += padded[i : i + height, j : j + width] @ weight[:, :, i, j].T
        return np.ldexp(found, -self.arrays[f"{name}.shift"].astype(int))

    @staticmethod
    def activation(x: Array) -> Array:
        return rne(x).clip(0, 127)

    @staticmethod
    def signed(x: Array, scale: float) -> Array:
        return rne(x * scale + 64).clip(0, 127)

    @staticmethod
    def shuffled(x: Array) -> Array:
        height, width, size = x.shape
        parts = x.reshape(height, width, size // 4, 2, 2).transpose(0, 3, 1, 4, 2)
        return parts.reshape(2 * height, 2 * width, size // 4)


def reference(model: VAE) -> Reference:
    """The page's arithmetic with the weights of a file."""
    assert model.integers is not None
    return Reference(dict(model.integers.arrays), model.prior.arrays["start"], model.prior.arrays["rise"])


@pytest.mark.parametrize("index", [0, 129, 255])
def test_pixels_are_those_of_the_format(model: VAE, index: int) -> None:
    """64x64 pixels, by numpy alone; neither all black nor all white."""
    latents = some_latents(model, 4, 4, index)
    expected = reference(model).pixels(latents, index)
    assert np.array_equal(decoded(model, latents, index), expected)
    assert 30 < expected.std() < 120


def test_pixels_do_not_depend_on_how_they_are_computed(model: VAE) -> None:
    """Carriers, threads, strips and whole: equal in every pixel."""
    latents = some_latents(model, 21, 17, 100)
    expected = decoded(model, latents, 100)
    assert model.integers is not None
    for carrier in CARRIERS[0 if exact_convolutions.best_carrier("cpu") == "onednn" else 1 :]:
        other = model.equipped()
        other.integers = model.integers.with_carrier(carrier)
        threads = torch.get_num_threads()
        try:
            for count, area in itertools.product((1, 2), (None, 60)):
                torch.set_num_threads(count)
                assert np.array_equal(decoded(other, latents, 100, area), expected), (carrier, count, area)
        finally:
            torch.set_num_threads(threads)


def test_training_sees_what_is_decoded(trained: VAE, model: VAE) -> None:
    """With the roundings of training, samples are those of the integers, but for halves and biases."""
    latents = some_latents(model, 6, 6, 140).clip(-3000, 3000)
    steps = torch.from_numpy(latents.astype(np.float32) / 16).permute(2, 0, 1)[None]
    real = (trained.reconstruct(steps, torch.tensor([140.0]))[0].permute(1, 2, 0) + 1) * 127.5
    error = np.abs(decoded(model, latents, 140) - real.clamp(0, 255).numpy())
    assert error.max() < 4
    assert error.mean() < 0.5


def test_the_narrow_channels_lose_little(trained: VAE) -> None:
    """The basis in integers, taken back, is the same to 1 / 250 of the largest weight."""
    lapped = exact_lapped.export(trained.backward_basis, trained.deviation)
    again = exact_lapped.restored(lapped, trained.deviation)
    units = trained.deviation[:, None, None, None]
    error = ((again - trained.backward_basis) * units)[exact_lapped.WIDE :].abs()
    largest = (trained.backward_basis * units)[exact_lapped.WIDE :].abs().max()
    assert error.max() < largest / 120
    twice = exact_lapped.export(again, trained.deviation)
    for name, array in lapped.arrays().items():
        assert np.array_equal(array, twice.arrays()[name]), name


def test_integers_that_do_not_fit_are_refused(model: VAE) -> None:
    """A missing array, one of another shape, sums that float32 might round."""
    assert model.integers is not None
    arrays, shape = dict(model.integers.arrays), model.integers.shape
    make = exact_synthesis.IntegerSynthesis
    with pytest.raises(ModelError, match=r"without deep\.0\.bias"):
        make({name: array for name, array in arrays.items() if name != "deep.0.bias"}, shape)
    with pytest.raises(ModelError, match=r"deep\.0 of the synthesis"):
        make(arrays, replace(shape, components=71))
    with pytest.raises(ModelError, match="mean"):
        make({**arrays, "mean": arrays["mean"][:2]}, shape)
    with pytest.raises(ModelError, match="wide"):
        make({**arrays, "linear.wide": arrays["linear.wide"].astype(np.int32)}, shape)
    with pytest.raises(ModelError, match="residual sums"):
        make({**arrays, "shallow.1.pointwise.shift": np.full(8, -12, np.int8)}, shape)
    with pytest.raises(ModelError, match="correction"):
        make({**arrays, "shallow.4.shift": np.ones(48, np.int8)}, shape)
