"""Codes by distance and bits: the choice, its network, and the codec that learns with it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import draw
from test_hierarchical import CONSTRAINED, TINY, begun, pictures
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from vqcodec import weights
from vqcodec.errors import UsageError
from vqcodec.models.quantizers import VectorQuantizer
from vqcodec.models.vqvae import HierarchicalVQVAE
from vqcodec.models.vqvae.rates import BLOCKS, PASSES, NetworkRates, RateNetwork
from vqcodec.training.validation.image import ImageMedium
from vqcodec.training.validation.measures import Reconstructions

CODES, DIM, CONTEXT = 24, 5, 7


@pytest.fixture
def quantizer() -> VectorQuantizer:
    torch.manual_seed(1)
    found = VectorQuantizer(CODES, DIM, moving_average=True, decay=0.99, restart_below=0)
    found.set_codebook(torch.randn(CODES, DIM))
    return found


def shaken() -> RateNetwork:
    """A network whose bits differ much from code to code and from place to place."""
    torch.manual_seed(2)
    network = RateNetwork(CODES, DIM, CONTEXT)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network


def bits_of(network: RateNetwork, quantizer: VectorQuantizer, codes: Tensor, context: Tensor) -> Tensor:
    """Bits of every code at all positions, [N, K]."""
    return -F.log_softmax(
        network.logits(network(quantizer.decode(codes), network.context(context))), 1
    ) / math.log(2)


@pytest.mark.parametrize("worth", [0.0, 0.1, 1.0])
@torch.no_grad()
def test_the_choice_is_that_of_the_sum(quantizer: VectorQuantizer, worth: float) -> None:
    """Squared distance and bits, each written out; without a worth of bits the nearest codes."""
    network, latents, context = shaken(), torch.randn(2, DIM, 9, 6), torch.randn(2, CONTEXT, 9, 6)
    codes = nearest = quantizer.encode(latents)
    flat = latents.movedim(1, -1).flatten(0, -2)
    for _ in range(PASSES):
        costs = torch.cdist(flat, quantizer.codebook).square()
        costs += worth * bits_of(network, quantizer, codes, context)
        codes = costs.argmin(1).view_as(codes)
    chosen = network.cheapest(quantizer, latents, context, torch.tensor([worth]))
    assert torch.equal(chosen, codes)
    assert torch.equal(chosen, nearest) == (worth == 0)


def test_bits_depend_on_codes_before_and_context_alone(quantizer: VectorQuantizer) -> None:
    """NW, N, NE, W, as far as the layers reach, never on the code itself or one after it."""
    network, context = shaken(), torch.randn(1, CONTEXT, 12, 12)
    vectors = torch.randn(1, DIM, 12, 12, requires_grad=True)
    embedded = network.context(context)
    features = network(vectors, embedded).view(12, 12, -1)
    (gradient,) = torch.autograd.grad(features[8, 5].sum(), vectors)
    seen = gradient[0].abs().sum(0) > 0
    rows, columns = torch.arange(12)[:, None] - 8, torch.arange(12) - 5
    before = (rows < 0) | ((rows == 0) & (columns < 0))
    near = (rows.abs() <= 1 + BLOCKS) & (columns.abs() <= 1 + BLOCKS)
    assert not (seen & ~(before & near)).any()
    assert seen[7, 4:7].all() and seen[8, 4] and seen[5, 5]
    assert not torch.equal(network(vectors, embedded), network(vectors, embedded + 1))


def test_the_network_learns_what_codes_cost(quantizer: VectorQuantizer) -> None:
    """Columns that repeat the code to the left: a bit or less, where equal shares would take log2 K."""
    network, context = RateNetwork(CODES, DIM, CONTEXT), torch.zeros(4, CONTEXT, 8, 8)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    torch.manual_seed(4)
    for _ in range(150):
        codes = torch.randint(CODES, (4, 8, 1)).expand(4, 8, 8)
        bits = network.bits(quantizer, codes, context)
        optimiser.zero_grad()
        bits.backward()
        optimiser.step()
    # An eighth of the codes is new.
    assert bits < 1.0 < math.log2(CODES) / 2


@torch.no_grad()
def test_a_revived_code_is_likely_where_its_parent_is(quantizer: VectorQuantizer) -> None:
    """By one part in 64 of its probability, in every context; all other codes keep theirs but for that."""
    network, context = shaken(), torch.randn(2, CONTEXT, 9, 6)
    codes = quantizer.encode(torch.randn(2, DIM, 9, 6))
    before = bits_of(network, quantizer, codes, context)
    network.split(torch.tensor([3, 8]), torch.tensor([5, 5]))
    after = bits_of(network, quantizer, codes, context)
    assert torch.allclose(after[:, [3, 8]], after[:, [5, 5]] + 6, atol=1e-3)
    others = [code for code in range(CODES) if code not in (3, 8)]
    assert torch.allclose(
        (after - before)[:, others], (after - before)[:, [0]].expand(-1, len(others)), atol=1e-3
    )


def test_a_training_revives_codes_that_are_chosen() -> None:
    """A code that is far from everything and costs much is used soon after its revival."""
    model = begun(replace(CONSTRAINED, restart_below=0.05))
    assert model.rate_network is not None
    quantizer, samples = model.bottom_quantizer, pictures().batch(0, seed=0, size=4, crop=64)
    with torch.no_grad():
        quantizer.codebook[0], model.rate_network.logits.bias[0] = 99.0, -20.0
    quantizer.ema_count[0] = 1e-6
    step = model.loss(samples)
    assert not (step.symbols["bottom"] == 0).any()
    assert model.update(step, 0.0, torch.Generator().manual_seed(0))["restarted"] >= 1
    assert (model.loss(samples).symbols["bottom"] == 0).any()


@torch.no_grad()
def test_more_worth_fewer_bits() -> None:
    """Bits fall and the error rises as bits are worth more."""
    model = begun(CONSTRAINED, shaken=False)
    assert model.rate_network is not None
    samples = pictures().batch(5, seed=1, size=8, crop=64)
    optimiser = torch.optim.Adam(model.rate_network.requires_grad_(True).parameters(), lr=1e-2)
    for _ in range(60):
        with torch.enable_grad():
            codes = {name: level.codes for name, level in model.encode(samples).items()}
            bits = model._bits(codes)
            assert bits is not None
            optimiser.zero_grad()
            bits.backward()
            optimiser.step()
    spent, errors = [], []
    for worth in (1e-9, 0.02, 0.1):
        model.config = replace(CONSTRAINED, error_per_bit=worth)
        trip = model.round_trip(samples, 255)
        assert trip.samples is not None and trip.loss is not None
        spent.append(trip.figures["bits"])
        errors.append(float((trip.samples - samples).square().mean()))
        assert trip.loss == pytest.approx(errors[-1] + worth * spent[-1] / 48, rel=1e-4)
    assert spent[0] > 1.05 * spent[1] > 1.1 * spent[2] and errors[0] < errors[1] < errors[2]


def test_bits_teach_their_network_alone() -> None:
    """The encoder is led by the distortion: choices have no gradient."""
    model = begun(CONSTRAINED).requires_grad_(True)
    step = model.loss(pictures().batch(0, seed=0, size=4, crop=64))
    step.terms["bits"].backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("rate_network."), name


@torch.no_grad()
def test_saved_weights_choose_the_same_codes(tmp_path: Path) -> None:
    """The network is stored with them; weights without one begin a training that has one."""
    samples = pictures().batch(5, seed=1, size=2, crop=64)
    for config in (CONSTRAINED, TINY):
        model, path = begun(config), tmp_path / f"{config.error_per_bit}.safetensors"
        for parameter in model.parameters():
            parameter.copy_(parameter.half())  # as they are stored
        weights.save(model, model.make_card("rates", {}, {}), path)
        loaded = weights.load(path, "cpu")
        assert isinstance(loaded, HierarchicalVQVAE)
        assert (loaded.rate_network is None) == (config is TINY)
        assert torch.equal(*(found.at(255).analyse(samples)["bottom"] for found in (model, loaded)))
        other = HierarchicalVQVAE(CONSTRAINED)
        other.load_from(loaded, 1.0)
        assert torch.equal(other.decoder[0].weight, loaded.decoder[0].weight)
        if loaded.rate_network is not None:
            assert other.rate_network is not None
            assert torch.equal(other.rate_network.logits.weight, loaded.rate_network.logits.weight)


def test_validation_counts_bits_too() -> None:
    """Of two codecs with equal reconstructions the one with the smaller loss is better."""
    model, held_out = begun(CONSTRAINED, shaken=False), [draw(64, 64, n) for n in range(2)]
    score, figures = Reconstructions(ImageMedium()).validate(model, held_out)
    assert score == -figures["loss"] and 0 < figures["bits"] < 9 and "bpp" not in figures
    score, figures = Reconstructions(ImageMedium()).validate(begun(TINY), held_out)
    assert score == figures["psnr_db"] and "loss" not in figures


@torch.no_grad()
def test_neighbours_in_whose_context_a_code_is(quantizer: VectorQuantizer) -> None:
    """E, SW, S and SE, and the code itself; at the edges those that there are."""
    network, context = shaken(), torch.randn(1, CONTEXT, 4, 5)
    codes = torch.randint(CODES, (1, 4, 5), generator=torch.Generator().manual_seed(0))
    rates = NetworkRates(network, quantizer, network.context(context), 0.05)
    own = bits_of(network, quantizer, codes, context).gather(1, codes.view(-1, 1)).view(4, 5)
    for y, x in ((1, 2), (0, 0), (3, 4), (2, 4)):
        near = [(y, x), (y, x + 1), (y + 1, x - 1), (y + 1, x), (y + 1, x + 1)]
        expected = sum(float(own[a, b]) for a, b in near if a < 4 and 0 <= b < 5)
        assert float(rates.around(codes)[0, y, x]) == pytest.approx(expected, rel=1e-4)
    where = torch.zeros(4, 5, dtype=torch.bool)
    where[1, 2] = where[3, 4] = True
    every = bits_of(network, quantizer, codes, context).view(4, 5, -1)
    assert torch.allclose(rates.choices(codes, where), every[where], atol=1e-4)


@torch.no_grad()
def test_a_search_costs_less_than_the_encoder_alone() -> None:
    """Error after decoding and bits together: less with every effort, and none below 2."""
    model = begun(CONSTRAINED)
    samples = pictures().batch(5, seed=1, size=4, crop=64)
    costs = []
    for effort in (0, 1, 2, 3):
        codes = model.at(255, effort).analyse(samples)
        bits = model._bits(codes)
        assert bits is not None and torch.equal(codes["top"], model.at(255).analyse(samples)["top"])
        costs.append(float((model.synthesise(codes) - samples).square().mean() + 0.05 / 48 * bits))
    assert costs[0] == costs[1] > 1.005 * costs[2] and costs[2] > costs[3]
    plain = begun(TINY)
    found = [plain.at(255, effort).analyse(samples)["bottom"] for effort in (0, 3)]
    assert torch.equal(*found)


class Waits(TorchDispatchMode):
    """Counts values that the program reads from tensors, for which a CUDA device would have to be waited."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += function is torch.ops.aten._local_scalar_dense.default
        return function(*args, **(kwargs or {}))


def test_the_loss_waits_for_no_value() -> None:
    """As `Trainable.loss` says, so that it can be captured as a CUDA graph."""
    model, samples = begun(CONSTRAINED).requires_grad_(True), pictures().batch(0, seed=0, size=2, crop=64)
    with Waits() as waits:
        model.loss(samples)
        assert waits.count == 0
        float(samples[0, 0, 0, 0])
        assert waits.count == 1


def test_bits_need_the_linear_decoder() -> None:
    with pytest.raises(UsageError, match="without linear_start"):
        replace(CONSTRAINED, linear_start=False).check()
