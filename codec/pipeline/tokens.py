"""Tokens: the codebook indices of VQ-VAE models as tensors, for models that are trained on them."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from .. import media, weights
from ..bitstream.quality import DEFAULT_QUALITY, index_of
from ..errors import MediaError, UsageError
from ..media.tensors import is_tensor
from ..models.base import OperatingPoint
from .encoding import analyse


def tokenize(
    x: media.Source | list[media.Source],
    *,
    model: str | os.PathLike[str],
    effort: int = 0,
    device: str | None = None,
) -> Tensor:
    """Map images or audio to the codebook indices that a bitstream would code.

    `vqvae-image`: K = 512, one token for 4x4 pixels, 9 bits each: a 256x256 image is 64 x 64 tokens.
    `vqvae-audio`: K = 512, one token for 64 samples at 16 kHz, 250 a second: 2.25 kbit/s for each channel.
    K of another model is config["codes"] of its card. Sounds are filtered and normalised first, so tokens do
    not tell how loud they are.

    Args:
        x: an image or audio as in `encode`; or a batch, a list of them of one size, or a tensor [B, C, H, W].
        model: a VQ-VAE with one plane of codes: its name or weights file.
        effort: 0..3, how long to search for better codes; 0 takes the nearest ones.
        device: of the networks and the tokens; None: of `x` where it is a tensor, otherwise "auto".

    Returns:
        int64 [h, w] of an image, h = ceil(H / stride) and w likewise; [C, T] of audio. A batch adds an axis
        in front. Values in 0..K-1.

    Raises:
        UsageError: a model of another kind or medium.
        MediaError: as in `encode`, or a batch whose sizes differ.
    """
    if device is None:
        device = str(x.device) if is_tensor(x) else "auto"
    point = _point(model, device, effort)
    if isinstance(x, list) or (is_tensor(x) and x.ndim == 4):
        parts = [_tokens(one, point) for one in x]
        if len({part.shape for part in parts}) != 1:
            raise MediaError("a batch of different sizes", "crop them to one size, or tokenize one by one")
        return torch.stack(parts)
    return _tokens(x, point)


@torch.inference_mode()
def detokenize(tokens: Tensor, *, model: str | os.PathLike[str]) -> Tensor:
    """Map tokens to samples, on the device of the tokens.

    Args:
        tokens: int64 [h, w] of an image, [C, T] of audio, or with the axis of a batch in front.
        model: that of `tokenize`.

    Returns:
        float32: of images [3, H, W] or [B, 3, H, W], H = h * stride, in 0..1; of audio [C, N] or [B, C, N],
        N = T * stride samples at 16 kHz, at the loudness of the training data.

    Raises:
        UsageError: a model of another kind, or tokens of another shape or beyond 0..K-1.
    """
    if not is_tensor(tokens):
        raise UsageError(f"tokens are a {type(tokens).__name__}", "give a tensor: torch.as_tensor(tokens)")
    point = _point(model, str(tokens.device))
    codes = point.planes[0].alphabet or 0
    if tokens.ndim not in (2, 3) or tokens.is_floating_point() or not tokens.numel():
        message = f"tokens are {str(tokens.dtype).removeprefix('torch.')} {list(tokens.shape)}"
        raise UsageError(message, "give int64 [h, w] or [C, T], or a batch of them")
    if not 0 <= int(tokens.min()) <= int(tokens.max()) < codes:
        raise UsageError(f"tokens from {int(tokens.min())} to {int(tokens.max())}", f"give 0 to {codes - 1}")
    batch = tokens.long() if tokens.ndim == 3 else tokens.long()[None]
    if point.model.axes == 1:
        sequences = batch.flatten(0, 1)
        samples = point.synthesise({point.planes[0].name: sequences})
        found = samples.reshape(*batch.shape[:2], -1)
    else:
        found = point.synthesise({point.planes[0].name: batch}).add(1).div(2).clamp(0, 1)
    return found if tokens.ndim == 3 else found[0]


def _point(model: str | os.PathLike[str], device: str, effort: int = 0) -> OperatingPoint:
    """Return the operating point of a model with one plane of codes."""
    loaded = weights.load(model, device)
    point = loaded.at(index_of(DEFAULT_QUALITY), effort)
    hint = "name a VQ-VAE with one level of codes, such as vqvae-image or vqvae-audio"
    if not all(plane.alphabet for plane in point.planes):
        raise UsageError(f"{loaded.card.name} has latents, not codes", hint)
    if len(point.planes) > 1:
        raise UsageError(f"{loaded.card.name} has several levels of codes, and tokens are those of one", hint)
    return point


def _tokens(x: media.Source, point: OperatingPoint) -> Tensor:
    """Return the tokens of one image or sound."""
    original = x if isinstance(x, media.Image | media.Audio) else media.read(x)
    if isinstance(original, media.Image) != (point.model.medium == "image"):
        raise UsageError(
            f"{point.model.card.name} is for {point.model.medium}", "name a model for this medium"
        )
    targets = analyse(original, point, joint=False).targets[point.planes[0].name]
    return torch.from_numpy(targets).to(point.device, torch.int64)
