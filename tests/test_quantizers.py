from __future__ import annotations

import pytest
import torch
from conftest import SMALL, draw
from vqcodec.metrics.image import code_use
from vqcodec.models import build
from vqcodec.models.quantizers import EntropyConstrainedQuantizer, VectorQuantizer, kmeans, nearest
from vqcodec.models.vqvae.image import Config
from vqcodec.training.datasets import Images


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nearest_is_the_brute_force_answer() -> None:
    vectors = torch.randn(20_000, 5, generator=generator())
    codebook = torch.randn(31, 5, generator=generator(1))
    assert torch.equal(nearest(vectors, codebook), torch.cdist(vectors, codebook).argmin(1))


def test_kmeans_finds_clusters_and_leaves_none_empty() -> None:
    true = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    vectors = true.repeat(100, 1) + 0.1 * torch.randn(400, 2, generator=generator())
    centres = kmeans(vectors, 12, generator(3))
    assert len(torch.unique(nearest(vectors, centres))) == 12
    assert torch.cdist(true, centres).min(1).values.max() < 0.5


def test_kmeans_of_few_vectors_gives_distinct_centres() -> None:
    centres = kmeans(torch.randn(5, 3, generator=generator()), 16, generator())
    assert len(torch.unique(centres, dim=0)) == 16


def test_moving_average_step_is_that_of_the_paper() -> None:
    quantizer = VectorQuantizer(2, 1, moving_average=True, decay=0.9, restart_below=0.03)
    quantizer.set_codebook(torch.tensor([[0.0], [10.0]]))
    latents = torch.tensor([1.0, 2.0, 12.0]).view(1, 1, 1, 3)
    codes = quantizer.encode(latents)
    assert codes.tolist() == [[[0, 0, 1]]]
    quantizer.update(latents, codes, restart=False, generator=generator())
    # N <- .9 * 1 + .1 * n,  m <- .9 * m + .1 * sum,  e = m / N
    expected = torch.tensor([[(0.9 * 0 + 0.1 * 3) / (0.9 + 0.2)], [(0.9 * 10 + 0.1 * 12) / (0.9 + 0.1)]])
    assert torch.allclose(quantizer.codebook, expected)


def test_a_codebook_starts_with_the_weight_it_is_given() -> None:
    quantizer = VectorQuantizer(2, 1, moving_average=True, decay=0.5, restart_below=0.03)
    quantizer.set_codebook(torch.tensor([[3.0], [10.0]]), count=4.0)
    assert (quantizer.ema_count.tolist(), quantizer.ema_sum.tolist()) == ([4.0, 4.0], [[12.0], [40.0]])
    latents = torch.tensor([6.0, 6.0]).view(1, 1, 1, 2)
    quantizer.update(latents, quantizer.encode(latents), restart=False, generator=generator())
    assert quantizer.codebook.tolist() == [[4.0], [10.0]], "four of 3 and two of 6"


def test_decay_counts_for_a_codebook_that_is_learned_by_the_loss_too() -> None:
    quantizer = VectorQuantizer(2, 1, moving_average=False, decay=0.6, restart_below=0.03)
    quantizer.set_codebook(torch.tensor([[0.0], [10.0]]))
    latents = torch.tensor([1.0, 2.0, 12.0]).view(1, 1, 1, 3)
    quantizer.update(latents, quantizer.encode(latents), restart=False, generator=generator())
    assert torch.allclose(quantizer.ema_count, torch.tensor([0.6 + 0.4 * 2, 0.6 + 0.4 * 1]))
    assert quantizer.codebook.requires_grad and quantizer.codebook.tolist() == [[0.0], [10.0]]


def test_a_dead_code_moves_onto_an_encoder_output() -> None:
    quantizer = VectorQuantizer(4, 2, moving_average=True, decay=0.99, restart_below=0.03)
    quantizer.set_codebook(torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [99.0, 99.0]]))
    quantizer.ema_count.copy_(torch.tensor([10.0, 10.0, 10.0, 0.001]))
    latents = torch.rand(1, 2, 4, 4, generator=generator())
    before = quantizer.encode(latents)
    moved = quantizer.update(latents, before, restart=True, generator=generator())
    flat = latents.permute(0, 2, 3, 1).reshape(-1, 2)
    (at,) = (quantizer.codebook[3] == flat).all(1).nonzero()
    assert moved.tolist() == [[3], [int(before.flatten()[at])]]


def test_a_dead_code_moves_onto_what_is_far_from_all_codes() -> None:
    """If vectors are drawn by their errors; also where none has an error."""
    latents = torch.zeros(1, 2, 4, 4)
    latents[0, :, 1, 2] = 5.0
    for values in (latents, torch.zeros(1, 2, 4, 4)):
        quantizer = VectorQuantizer(3, 2, moving_average=False, decay=0.99, restart_below=0.03)
        quantizer.set_codebook(torch.tensor([[0.0, 0.0], [-3.0, 0.0], [99.0, 99.0]]))
        quantizer.ema_count[2] = 0.001
        moved = quantizer.update(values, quantizer.encode(values), True, generator(), by_error=True)
        assert moved.tolist() == [[2], [0]]
        assert torch.equal(quantizer.codebook[2], values[0, :, 1, 2])


def train_and_count(**changes: object) -> tuple[int, float]:
    """Codes that 150 steps of a small model leave in use, on the same pictures and seed."""
    torch.manual_seed(0)
    pictures = Images([draw(96, 96, n) for n in range(8)], [""] * 8, [])
    settings = {key: int(value) for key, value in SMALL.items()}
    model = build(Config(**{**settings, "linear_start": False, **changes}))  # type: ignore[arg-type]
    model.start(lambda n: pictures.batch(n, seed=1, size=4, crop=64), generator())
    optimiser = torch.optim.Adam((p for p in model.parameters() if p.requires_grad), 1e-3)
    histogram = torch.zeros(model.config.codes, dtype=torch.int64)
    for step in range(150):
        optimiser.zero_grad()
        done = model.loss(pictures.batch(step, seed=0, size=4, crop=64))
        done.loss.backward()
        optimiser.step()
        model.update(done, step / 150, generator(step))
        codes = done.symbols["codes"]
        if step >= 140:
            histogram += torch.bincount(codes.flatten(), minlength=model.config.codes)
    use = code_use(histogram.numpy())
    return use.used, use.perplexity


def test_the_disease_and_the_cure() -> None:
    """A codebook that starts far from the data leaves half of the codes unused; restarts mend it."""
    used_ill, perplexity_ill = train_and_count(codebook_start="random", restart_below=0.0)
    used_restarted, perplexity_restarted = train_and_count(codebook_start="random", restart_below=0.03)
    used_cured, perplexity_cured = train_and_count(codebook_start="kmeans", linear_start=True)
    assert used_ill <= 40
    assert used_restarted >= 60 and perplexity_restarted > 2 * perplexity_ill
    assert used_cured >= 62 and perplexity_cured > 2.5 * perplexity_ill


def test_kmeans_of_as_many_vectors_as_centres_gives_the_vectors() -> None:
    vectors = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    centres = kmeans(vectors, 5, torch.Generator().manual_seed(1))
    assert sorted(centres.tolist()) == sorted(vectors.tolist())


def test_costs_are_added_to_squared_distances() -> None:
    vectors = torch.randn(500, 3, generator=generator())
    codebook, costs = torch.randn(20, 3, generator=generator(1)), torch.rand(20, generator=generator(2))
    wanted = (torch.cdist(vectors, codebook).square() + costs).argmin(1)
    assert torch.equal(nearest(vectors, codebook, costs), wanted)


def entropy_and_error(
    vectors: torch.Tensor, codes: torch.Tensor, codebook: torch.Tensor
) -> tuple[float, float]:
    shares = torch.bincount(codes, minlength=len(codebook)) / len(codes)
    entropy = float(-(shares * shares.clamp(min=1e-9).log2()).sum())
    return entropy, float((vectors - codebook[codes]).square().sum(1).mean())


def test_a_large_codebook_with_costs_beats_a_small_one() -> None:
    """Of Laplacian vectors: fewer bits and less error than k-means with half the codes."""
    signs, sizes = (
        torch.randn(20_000, 2, generator=generator()).sign(),
        torch.rand(20_000, 2, generator=generator(1)),
    )
    vectors = -signs * (1 - sizes).log()
    quantizer = EntropyConstrainedQuantizer(64, 2, decay=0.99)
    quantizer.set_codebook(torch.zeros(64, 2))
    quantizer.fit(vectors, 0.06, generator(2))
    codes = quantizer.encode(vectors)
    bits, error = entropy_and_error(vectors, codes, quantizer.codebook.detach())
    small = kmeans(vectors, 24, generator(2))
    bits_small, error_small = entropy_and_error(vectors, nearest(vectors, small), small)
    assert bits < bits_small and error < 0.95 * error_small
    assert float(quantizer.bits[codes].mean()) == pytest.approx(bits, abs=0.02)
    assert float(quantizer.distance_per_bit) == pytest.approx(0.06 * float(vectors.square().sum(1).mean()))
    for code in (torch.bincount(codes, minlength=64) > 100).nonzero().flatten():
        assert torch.allclose(vectors[codes == code].mean(0), quantizer.codebook[code], atol=0.1), "centroids"


def test_a_fit_goes_on_from_the_codes_that_there_are() -> None:
    true = torch.tensor([[10.0, 10.0], [0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    vectors = true.repeat(100, 1) + 0.1 * torch.randn(400, 2, generator=generator())
    quantizer = EntropyConstrainedQuantizer(4, 2, decay=0.99)
    quantizer.set_codebook(true + 0.5, 2.0)
    quantizer.fit(vectors, 0.01, generator(), rounds=2)
    assert torch.allclose(quantizer.codebook, true, atol=0.1), "in their order"
    assert torch.allclose(quantizer.ema_count, torch.full((4,), 2.0)), "the uses of a step stay as many"


def test_bits_follow_usage() -> None:
    quantizer = EntropyConstrainedQuantizer(4, 1, decay=0.5)
    quantizer.set_codebook(torch.tensor([[0.0], [1.0], [2.0], [3.0]]))
    assert quantizer.bits.tolist() == [2.0] * 4
    latents = torch.zeros(1, 1, 12)
    quantizer.update(latents, quantizer.encode(latents), restart=False, generator=generator())
    # uses: 0.5 * 1 + 0.5 * 12 of the first, 0.5 of the others
    assert torch.allclose(quantizer.bits, -torch.log2(torch.tensor([6.5, 0.5, 0.5, 0.5]) / 8))
    quantizer.set_codebook(quantizer.codebook.detach(), torch.tensor([3.0, 1.0, 0.0, 0.0]))
    none = latents[..., :0]
    quantizer.update(none, quantizer.encode(none), restart=False, generator=generator())
    assert quantizer.bits[2:].tolist() == [12.0] * 2, "the fewest uses that count: 2 bits and 10"
    quantizer.distance_per_bit.fill_(1.0)
    assert quantizer.encode(torch.tensor([[[0.9]]])).item() == 0, "farther away, but used more often"
