"""Losses that are run as graphs where there is a CUDA device, and batches that are made ahead."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from vqcodec.capture import Captured
from vqcodec.datasets import Ahead

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]


class Model(nn.Module):
    """y = x W^T, and a part that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

    def loss(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.used(x)
        self.last = y.detach()
        return {"loss": y.square().sum(), "size": y.abs().mean()}


@pytest.mark.parametrize("device", DEVICES)
def test_captured_losses_are_those_of_the_method(device: str) -> None:
    model = Model().to(device)
    captured = Captured(model, "loss")
    for number in range(4):
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number)).to(device)
        wanted = model.loss(x)
        wanted["loss"].backward()
        gradient = model.used.weight.grad
        model.used.weight.grad = None
        found = captured.run(x)
        found["loss"].backward()
        assert {name: float(term.detach()) for name, term in found.items()} == pytest.approx(
            {name: float(term.detach()) for name, term in wanted.items()}
        )
        assert not found["size"].requires_grad
        assert torch.allclose(model.used.weight.grad, gradient, rtol=1e-4)
        assert torch.allclose(model.last, model.used(x), rtol=1e-3, atol=1e-5), "left by the newest call"
        assert model.idle.weight.grad is None
        with torch.no_grad():  # as an optimiser does, in place
            model.used.weight += model.used.weight.grad
        model.used.weight.grad = None


def test_batches_are_made_ahead() -> None:
    """Each once, whichever is asked for; the next one while nobody waits."""
    made: list[int] = []
    begun = threading.Event()

    def draw(number: int) -> torch.Tensor:
        made.append(number)
        if number == 8:
            begun.set()
        return torch.tensor(number)

    ahead = Ahead(draw)
    assert [int(ahead.batch(number)) for number in (0, 1, 2, 7)] == [0, 1, 2, 7]
    assert begun.wait(5), "8 was begun before anyone asked"
    assert int(ahead.batch(8)) == 8
    assert int(ahead.batch(4)) == 4
    assert made[:4] == [0, 1, 2, 3] and made.count(8) == 1


def test_a_batch_that_fails_is_told_when_it_is_due() -> None:
    def draw(number: int) -> torch.Tensor:
        if number == 1:
            raise MemoryError
        return torch.tensor(number)

    ahead = Ahead(draw)
    assert int(ahead.batch(0)) == 0
    with pytest.raises(MemoryError):
        ahead.batch(1)
