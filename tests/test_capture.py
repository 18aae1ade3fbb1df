"""Losses that are run as graphs where there is a CUDA device, and batches that are made ahead."""

from __future__ import annotations

import copy
import threading
from typing import Any

import pytest
import torch
from torch import nn
from vqcodec.models.base import LossStep
from vqcodec.training.capture import CUDAGraphed
from vqcodec.training.datasets import Prefetcher

NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=NO_GPU)]


class Model(nn.Module):
    """y = x W^T, and a part that takes no part."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

    def loss(self, x: torch.Tensor) -> LossStep:
        y = self.used(x)
        codes = {"codes": (y > 0).long()}
        return LossStep(y.square().sum(), {"size": y.abs().mean()}, codes, {"last": y.detach()})


def compare(device: str) -> None:
    """Terms and gradients of some steps, beside those of a twin whose method is called as it is."""
    torch.manual_seed(0)
    model = Model().to(device)
    captured = CUDAGraphed(model, model.loss)
    for number in range(4):
        twin = copy.deepcopy(model)
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number)).to(device)
        wanted = twin.loss(x)
        wanted.loss.backward()
        captured.prepare(x)
        found = captured.run(x)
        assert set(found.terms) == {"size"}
        assert not any(term.requires_grad for term in (found.loss, *found.terms.values()))
        for term, other in ((found.loss, wanted.loss), (found.terms["size"], wanted.terms["size"])):
            assert float(term) == pytest.approx(float(other.detach()), rel=1e-4)
        assert torch.equal(found.symbols["codes"], wanted.symbols["codes"])
        assert torch.allclose(model.used.weight.grad, twin.used.weight.grad, rtol=1e-4)
        assert torch.allclose(found.kept["last"], wanted.kept["last"], rtol=1e-4), "of the newest call"
        assert model.idle.weight.grad is None
        with torch.no_grad():  # as an optimiser does, in place
            model.used.weight -= 0.01 * model.used.weight.grad
        model.used.weight.grad = None
    assert captured.train(False) is captured and captured.state_dict(), "no module of itself"


@pytest.mark.parametrize("device", DEVICES)
def test_captured_losses_are_those_of_the_method(device: str) -> None:
    compare(device)


def test_what_a_graph_gives_is_brought_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """A replay hands all terms out with gradients, those that had none with zeros."""
    made: list[Any] = []

    class Replay(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, owner: Any, x: torch.Tensor, *_: torch.Tensor) -> Any:
            ctx.owner, ctx.x = owner, x
            with torch.no_grad():
                return tuple(term.clone() for term in owner(x).values())

        @staticmethod
        def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
            assert [float(gradient.sum()) for gradient in gradients if gradient is not None] == [
                1.0,
                0.0,
                0.0,
                0.0,
            ]
            parameters = [*ctx.owner.__self__.parameters()]
            with torch.enable_grad():
                loss = ctx.owner(ctx.x)["loss"]
            return None, None, *torch.autograd.grad(loss, parameters, allow_unused=True)

    def graphed(module: Any, inputs: Any, **options: Any) -> Any:
        made.append((inputs, options))
        honest = module.forward
        module.forward = lambda x: dict(
            zip(
                ("loss", "terms/size", "symbols/codes", "kept/last"),
                Replay.apply(honest, x, *module.parameters()),
                strict=True,
            )
        )
        return module

    monkeypatch.setattr(torch.cuda, "make_graphed_callables", graphed)
    monkeypatch.setattr("vqcodec.training.capture._on_current_device", lambda _: True)
    compare("cpu")
    assert len(made) == 1, "once"


def test_batches_are_made_ahead() -> None:
    """Each once, whichever is asked for; the next one while nobody waits."""
    made: list[int] = []
    begun = threading.Event()

    def draw(number: int) -> torch.Tensor:
        made.append(number)
        if number == 8:
            begun.set()
        return torch.tensor(number)

    ahead = Prefetcher(draw)
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

    ahead = Prefetcher(draw)
    assert int(ahead.batch(0)) == 0
    with pytest.raises(MemoryError):
        ahead.batch(1)
    assert int(ahead.batch(2)) == 2, "and no more than that"
