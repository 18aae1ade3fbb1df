"""Convert samples to numpy arrays and torch tensors, and back; torch is not imported before a caller has."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import MediaError

if TYPE_CHECKING:
    import torch
    from typing_extensions import TypeIs


def as_array(samples: np.ndarray, dtype: np.dtype[Any] | None, copy: bool | None) -> np.ndarray:
    """Do what numpy asks of `__array__`.

    Raises:
        ValueError: no copy was allowed, and another type needs one.
    """
    same = dtype is None or np.dtype(dtype) == samples.dtype
    if copy is False and not same:
        raise ValueError(f"samples of {samples.dtype} become {dtype} in a copy only")
    return samples.astype(dtype or samples.dtype, copy=bool(copy))


def is_tensor(value: object) -> TypeIs[torch.Tensor]:
    """Tell whether a value is a tensor; without torch in memory there are none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def pixels_of(tensor: torch.Tensor) -> np.ndarray:
    """Convert an image to uint8 [H, W, C].

    Args:
        tensor: uint8 [C, H, W], or floating-point [C, H, W] with values in 0..1, which are rounded to 8 bits;
            C = 1 or 3, or 2 or 4 with alpha. On any device.

    Raises:
        MediaError: another shape or type, or values that are not in 0..1.
    """
    shape = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
    hint = "give uint8, or floats in 0..1, [C, H, W]; audio as Audio.of(tensor, rate)"
    if tensor.ndim != 3 or not 1 <= tensor.shape[0] <= 4:
        raise MediaError(f"tensor is {shape}", hint)
    array: np.ndarray = tensor.detach().cpu().permute(1, 2, 0).numpy()
    if array.dtype == np.uint8:
        return array
    if not tensor.is_floating_point():
        raise MediaError(f"tensor is {shape}", hint)
    if array.size and not (array.min() >= 0 and array.max() <= 1):  # false for NaN, too
        raise MediaError(f"values from {array.min():.3g} to {array.max():.3g}", hint)
    return np.rint(array * np.float32(255)).astype(np.uint8)


def signal_of(tensor: torch.Tensor) -> np.ndarray:
    """Convert audio, [N] or [C, N] as torchaudio has it, to [N] or [N, C]."""
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array.T


def tensor_of(samples: np.ndarray, device: str | torch.device) -> torch.Tensor:
    """Convert samples, [..., C] with C last, to a float32 tensor [C, ...]; uint8 becomes 0..1."""
    import torch

    scale = 255 if samples.dtype == np.uint8 else 1
    channels_first = np.ascontiguousarray(np.moveaxis(samples, -1, 0))
    return torch.from_numpy(channels_first).to(device, torch.float32).div_(scale)
