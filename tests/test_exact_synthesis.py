"""The synthesis in integers: the pixels of FORMAT-priors.md, however they are computed."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import draw
from numpy.typing import NDArray
from vqcodec.bitstream.geometry import ImageGeometry
from vqcodec.errors import ModelError
from vqcodec.models import adaptive_rounding, equalization, exact_lapped, exact_synthesis
from vqcodec.models.synthesis import Decoder
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
    pixels = torch.from_numpy(draw(64, 96, 3)).permute(2, 0, 1)[None] / 127.5 - 1
    model.prepare_export(lambda n: pixels)
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
        plane = np.full((height, width, 1), q)
        mean = np.repeat(self.arrays["mean"], 16)
        joined = np.concatenate((features, self.activation((linear + mean) / 256), plane), 2)
        sides = [128] * features.shape[2], self.activation(mean / 256), [128]
        x = self.layer("shallow.0", joined, border=np.concatenate(sides))
        x = self.blocks(x, "shallow", 1, 2)
        levels = self.layer("shallow.4", self.activation(x)) + linear + mean
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

    def layer(self, name: str, x: Array, border: Array | float = 0.0) -> Array:
        weight = self.arrays[f"{name}.weight"].astype(np.float64)
        margin = weight.shape[2] // 2
        height, width, size = x.shape
        padded = np.zeros((height + 2 * margin, width + 2 * margin, size)) + border
        padded[margin : margin + height, margin : margin + width] = x
        found = np.zeros((height, width, len(weight))) + self.arrays[f"{name}.bias"]
        for i, j in itertools.product(range(weight.shape[2]), repeat=2):
            found += padded[i : i + height, j : j + width] @ weight[:, :, i, j].T
        return np.ldexp(found, -self.arrays[f"{name}.shift"].astype(int))

    @staticmethod
    def activation(x: Array) -> Array:
        return rne(x).clip(0, 255)

    @staticmethod
    def signed(x: Array, scale: float) -> Array:
        return rne(x * scale + 128).clip(0, 255)

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


def test_equalization_keeps_the_function_and_lessens_the_error_of_integers(trained: VAE) -> None:
    """Channels of unlike sizes, some dead: the same samples in real numbers, and closer ones in integers."""
    model = copy.deepcopy(trained)
    shape, decoder = model.decoder.shape, model.decoder
    small = torch.exp2(-torch.arange(float(shape.fine[1])))
    for name in shape.fine_blocks:
        decoder.layer(f"{name}.spatial").weight.mul_(small[:, None, None, None])
        decoder.layer(f"{name}.pointwise").weight.div_(small[:, None, None])
    decoder.layer(f"{shape.fine_blocks[0]}.spatial").weight[0] = 0.0
    pixels = torch.from_numpy(draw(64, 96, 3)).permute(2, 0, 1)[None] / 127.5 - 1
    inputs = [model._inputs(pixels, index) for index in (60, 160)]
    exact = [decoder(*each) for each in inputs]
    colour = model.mean + 127.5

    def error(decoder: Decoder = decoder) -> float:
        pairs = zip(inputs, exact, strict=True)
        return sum(float((decoder(*x, colour) - y).square().mean()) for x, y in pairs)

    before = error()
    equalization.equalise(decoder, inputs)
    for each, expected in zip(inputs, exact, strict=True):
        assert torch.allclose(decoder(*each), expected, atol=1e-4 * float(expected.abs().max()))
    assert error() < 0.1 * before
    plain = copy.deepcopy(decoder)
    for name, bits in decoder.inputs.items():
        layer = plain.layer(name)
        scale = exact_convolutions.scales(layer, bits)
        layer.weight.copy_((layer.weight * scale).round() / scale)
    adaptive_rounding.round_weights(decoder, inputs)
    assert error() < 0.5 * error(plain)


def test_rounding_makes_up_for_its_errors() -> None:
    """Of inputs that are nearly alike, plain rounding errs by the sum of all errors, GPTQ by one at most."""
    generator = torch.Generator().manual_seed(3)
    inputs = 50 + torch.randn(500, 40, generator=generator)
    weights = 20 * torch.randn(8, 40, generator=generator)
    found = adaptive_rounding.rounded(weights, inputs.T @ inputs)
    assert torch.equal(found, found.round()) and float(found.abs().max()) <= 127
    assert float((found - weights).abs().max()) < 2
    plain, ours = (float(((inputs @ (w - weights).T) ** 2).mean()) for w in (weights.round(), found))
    assert ours < plain / 20
    alone = torch.diag(torch.arange(1.0, 41))
    assert torch.equal(adaptive_rounding.rounded(weights, alone), weights.round()), "nothing to make up for"


@pytest.mark.parametrize("bits", [4, 5])
def test_the_factor_of_a_channel_fills_its_integers(bits: int) -> None:
    """A uniform channel up to 1 gets its largest value to 255, to a step of the search; a dead one stays."""
    uniform = torch.linspace(0, 1, 1000)
    values = torch.stack((uniform, 8 * uniform, torch.zeros(1000), -uniform))
    factors = equalization.best([equalization._Seen(values, bits, 0, 255)])
    ideal = 255 / 2**bits
    assert ideal / 2**0.25 < float(factors[0]) <= ideal * 2**0.25
    assert float(factors[0] / factors[1]) == 8
    assert factors[2:].tolist() == [1, 1]


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


def test_a_transform_that_is_restored_is_exported_alike() -> None:
    """Also where the largest weight comes back from float32 a little above what eight bits hold."""
    generator = torch.Generator().manual_seed(2)
    basis = torch.randn(exact_lapped.WIDE + 40, 192, 4, 4, generator=generator)
    deviation = torch.rand(len(basis), generator=generator) * 30 + 0.01
    once = exact_lapped.export(basis, deviation)
    again = exact_lapped.export(exact_lapped.restored(once, deviation).float(), deviation)
    assert all(np.array_equal(array, again.arrays()[name]) for name, array in once.arrays().items())


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
