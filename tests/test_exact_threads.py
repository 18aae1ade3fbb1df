"""Exact integers in a program that has asked for less exact products, in one thread and in two."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw
from torch import Tensor
from vqcodec import pipeline
from vqcodec.priors import exact

MODELS = pytest.mark.parametrize("model", ["vqvae-image", "vae-image"])


def setting() -> str:
    """The precision of float32 products that the process has chosen."""
    return str(torch.backends.mkldnn.matmul.fp32_precision)  # type: ignore[attr-defined]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Settings found at each product; products that obey them, as those of a CPU with bfloat16 units do."""
    found: list[str] = []
    product, before = torch.addmm, setting()

    def obedient(bias: Tensor, x: Tensor, weight: Tensor, **rest: Any) -> Tensor:
        found.append(setting())
        if x.dtype == torch.float32 and found[-1] in ("bf16", "tf32"):
            x, weight = x.bfloat16().float(), weight.bfloat16().float()
        return product(bias, x, weight, **rest)

    monkeypatch.setattr(torch, "addmm", obedient)
    yield found
    torch.backends.mkldnn.matmul.fp32_precision = before  # type: ignore[attr-defined]


def choose(precision: str) -> None:
    torch.backends.mkldnn.matmul.fp32_precision = precision  # type: ignore[attr-defined]


def layer() -> tuple[exact.IntegerLinear, Tensor]:
    """A layer, and inputs whose products need all bits of float32 but are far from round numbers."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-127, 128, (24, 64), dtype=np.int8)
    affine = exact.IntegerLinear(weight, rng.integers(-99, 99, 24, dtype=np.int32), np.full(24, 3, np.uint8))
    return affine, torch.from_numpy(rng.integers(-127, 128, (50, 64)).astype(np.float32))


def side_by_side(work: Callable[[int], Any], count: int) -> list[Any]:
    """Results of `work(0)` to `work(count - 1)` on two threads that take turns as often as Python can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(work, range(count)))
    finally:
        sys.setswitchinterval(before)


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
@MODELS
def test_threads_write_what_one_writes(model: str, precision: str, seen: list[str]) -> None:
    pictures = [draw(72, 64, seed) for seed in range(4)]
    plain = [pipeline.encode(picture, model=model, device="cpu") for picture in pictures]
    restored = [pipeline.decode(data, device="cpu").samples for data in plain]
    choose(precision)
    seen.clear()

    def both_ways(number: int) -> tuple[bytes, np.ndarray]:
        data = pipeline.encode(pictures[number], model=model, device="cpu")
        return data, pipeline.decode(plain[number], device="cpu").samples

    alone = [both_ways(number) for number in range(4)]
    together = side_by_side(both_ways, 4)
    assert [data for data, _ in together] == [data for data, _ in alone]
    for found, (_, one), (_, two) in zip(restored, alone, together, strict=True):
        # The networks around the prior may round otherwise; the codes are those that were written.
        assert np.abs(one.astype(int) - found).mean() < 1
        assert np.array_equal(one, two)
    assert set(seen) == {precision}, "the choice of the process is not touched"
    assert setting() == precision

    choose("ieee")
    for data, _ in alone:
        pipeline.decode(data, device="cpu")


@pytest.mark.parametrize("precision", ["none", "ieee", "tf32", "bf16"])
def test_integers_do_not_depend_on_the_setting(precision: str, seen: list[str]) -> None:
    affine, x = layer()
    choose(precision)
    with exact.arithmetic():
        found = affine(x)
    whole = x.long() @ torch.from_numpy(affine.weight).long().T + torch.from_numpy(affine.bias)
    assert torch.equal(found, torch.floor(whole.double() / 8).float())
    assert found.dtype == torch.float32
    assert set(seen) == {setting()}
    assert torch.equal(affine(x.double()), found.double())


def test_a_change_during_a_product_is_noticed(monkeypatch: pytest.MonkeyPatch, seen: list[str]) -> None:
    affine, x = layer()
    expected = affine(x)
    obedient = torch.addmm

    def changed(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        choose("bf16")
        return obedient(bias, x, weight)

    monkeypatch.setattr(torch, "addmm", changed)
    choose("ieee")
    assert torch.equal(affine(x), expected)


def test_shortened_factors_are_noticed_whatever_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """DNNL_DEFAULT_FPMATH_MODE=BF16 in the environment changes products, and no setting tells."""
    affine, x = layer()
    expected, product = affine(x), torch.addmm

    def short(bias: Tensor, x: Tensor, weight: Tensor) -> Tensor:
        if x.dtype == torch.float32:
            x, weight = x.bfloat16().float(), weight.bfloat16().float()
        return product(bias, x, weight)

    monkeypatch.setattr(torch, "addmm", short)
    exact._always_shortened.cache_clear()
    try:
        assert exact._factors_are_shortened()
        assert torch.equal(affine(x), expected)
    finally:
        exact._always_shortened.cache_clear()


def test_the_trial_is_of_float32_whatever_is_around() -> None:
    exact._always_shortened.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert not exact._always_shortened()
    finally:
        torch.set_default_dtype(torch.float32)


def test_gradients_and_autocast_are_left_as_they_were() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        with exact.arithmetic():
            assert not torch.is_autocast_enabled("cpu")
            assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert not torch.is_inference_mode_enabled()
