"""Several processes that train one model, as `torchrun` starts them: what they share in every step.

All have the same weights. Each computes the loss of its part of the batch; gradients are averaged, and what
the state depends on besides is gathered, so that all go on alike and the process of rank 0 can write for all.
This is the all-reduce of DistributedDataParallel, which itself cannot be used around a loss that runs as a
CUDA graph. Without `torchrun` there is one process, and every function returns what it is given.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from ..errors import UsageError
from ..models.base import LossStep

T = TypeVar("T")


@contextmanager
def group(device: str) -> Iterator[str]:
    """Join the processes that `torchrun` started, if it did; yield the device of this one.

    Args:
        device: "cuda" becomes the one of this process's local rank.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or "RANK" not in os.environ:
        yield device
        return
    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
        torch.cuda.set_device(device)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
        # Once: a second group of these processes would find the addresses of the first.
        atexit.register(dist.destroy_process_group)
    yield device
    dist.barrier()  # none leaves while another still reads what it sent


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def leads() -> bool:
    """Tell whether this process writes and reports for all."""
    return rank() == 0


def check(batch: int) -> None:
    """Refuse a batch that cannot be divided among the processes.

    Raises:
        UsageError: it is not a multiple of their number.
    """
    if batch % count():
        raise UsageError(f"a batch of {batch} for {count()} processes", f"give a multiple of {count()}")


def seed(number: int) -> int:
    """Return a seed of its own for each process; that of rank 0 is the number."""
    return (number + rank() * 0x9E3779B97F4A7C15) % (1 << 64)


def part(batch: Tensor) -> Tensor:
    """Return the share of this process of a batch, [B, ...] -> [B / processes, ...]."""
    return batch.chunk(count())[rank()]


def average(parameters: Sequence[Tensor]) -> None:
    """Average the gradients of all processes in place."""
    if count() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= count()
    for gradient, values in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(values.view_as(gradient))


def gathered(step: LossStep) -> LossStep:
    """Return a step as if of the whole batch: means of the terms, and all symbols and kept tensors."""
    if count() == 1:
        return step
    names = [*step.terms]
    means = torch.stack([step.loss, *step.terms.values()])
    dist.all_reduce(means)
    loss, *terms = means / count()
    return replace(
        step,
        loss=loss,
        terms=dict(zip(names, terms, strict=True)),
        symbols={name: _whole(tensor) for name, tensor in step.symbols.items()},
        kept={name: _whole(tensor) for name, tensor in step.kept.items()},
    )


def _whole(tensor: Tensor) -> Tensor:
    parts = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for _ in range(count())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def most(*values: float) -> list[float]:
    """Return the largest of each value among the processes."""
    if count() == 1:
        return [*values]
    largest = torch.tensor(values, dtype=torch.float64, device=_device())
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest.tolist()


def led(work: Callable[[], T]) -> T:
    """Return what work gives, or raise what it raises, that the process that leads does for all."""
    if count() == 1:
        return work()
    answer: list[tuple[T | None, Exception | None]] = [(None, None)]
    if leads():
        try:
            answer = [(work(), None)]
        except Exception as error:
            answer = [(None, error)]
    dist.broadcast_object_list(answer, device=_device())
    result, failure = answer[0]
    if failure is not None:
        raise failure
    return cast("T", result)


def copy_from_leader(tensors: Sequence[Tensor]) -> None:
    """Copy tensors of the process that leads into those of the others."""
    for tensor in tensors if count() > 1 else ():
        dist.broadcast(tensor, 0)


def _device() -> torch.device:
    cuda = dist.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
