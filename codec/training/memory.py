"""Tell how much memory a training takes."""

from __future__ import annotations

import sys

import torch


def peak_bytes(device: str) -> int | None:
    """Return the largest amount of memory that was in use so far; None where the system does not tell.

    Args:
        device: of the networks: that of a CUDA device, otherwise that of the process.
    """
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
