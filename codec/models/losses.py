"""Distortions and the terms of training losses, each with its unit."""

from __future__ import annotations

import functools

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from ..metrics import spectra
from ..metrics.image import C1, C2, SCALE_WEIGHTS, SIGMA, WINDOW


def squared_error(reconstruction: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error in squared units of the samples (pixels: the range -1..1 is 2 units)."""
    return F.mse_loss(reconstruction, target)


def commitment(latent: Tensor, quantized: Tensor) -> Tensor:
    """Return the mean squared distance of latents to their codes (van den Oord 2017, eq. 3, third term).

    Gradients reach the encoder only. Unit: squared units of the latents, per element.
    """
    return F.mse_loss(latent, quantized.detach())


def codebook(latent: Tensor, quantized: Tensor) -> Tensor:
    """Return the mean squared distance of codes to latents (van den Oord 2017, eq. 3, second term).

    Gradients reach the codebook only. Unit: squared units of the latents, per element.
    """
    return F.mse_loss(quantized, latent.detach())


def ms_ssim(reconstruction: Tensor, target: Tensor, weights: tuple[float, ...] = SCALE_WEIGHTS) -> Tensor:
    """Return the multi-scale structural similarity (Wang et al. 2003) of images, with gradients.

    As `metrics.image.ms_ssim`, but scales into which the window does not fit are left out: all five need
    sides of 161 pixels.

    Args:
        reconstruction: float32 [B, C, H, W] in -1..1, at least 11 pixels high and wide.
        target: the same shape; no gradient reaches it.
        weights: exponents of the scales, the finest first; they sum to 1.

    Returns:
        [B], at most 1. A scale whose similarity is below 0.001 counts as 0.001 and has no gradient.
    """
    x, y = (((samples + 1) * 127.5).contiguous() for samples in (reconstruction, target.detach()))
    product = x.new_ones(x.shape[:2])
    for scale, weight in enumerate(weights):
        coarsest = scale == len(weights) - 1 or (min(x.shape[2:]) + 1) // 2 < WINDOW
        product = product * _similarity(x, y, luminance=coarsest).clamp(min=1e-3) ** weight
        if coarsest:
            break
        x, y = _halve(x), _halve(y)
    return product.mean(1)


def luma(samples: Tensor) -> Tensor:
    """Return the luma of RGB samples (ITU-R BT.601): [B, 3, H, W] -> [B, 1, H, W]."""
    red, green, blue = samples[:, :1], samples[:, 1:2], samples[:, 2:]
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _similarity(x: Tensor, y: Tensor, *, luminance: bool) -> Tensor:
    """Return the mean of c*s, or with luminance of l*c*s, over all windows: [B, C]; x, y in 0..255."""
    mean_y = _blur(y)
    mean_x, squares, product = _blur(torch.cat((x, x * x + y * y, x * y), 1)).chunk(3, 1)
    squared_means, product_of_means = mean_x * mean_x + mean_y * mean_y, mean_x * mean_y
    similarity = (2 * (product - product_of_means) + C2) / (squares - squared_means + C2)
    if luminance:
        similarity = similarity * (2 * product_of_means + C1) / (squared_means + C1)
    return similarity.mean((2, 3))


def _blur(maps: Tensor) -> Tensor:
    """Return means under the Gaussian window where it lies inside: -> [B, C, H - 10, W - 10]."""
    count = maps.shape[1]
    window = torch.exp(-((torch.arange(WINDOW, device=maps.device) - WINDOW // 2) ** 2) / (2 * SIGMA**2))
    window = (window / window.sum()).to(maps.dtype).expand(count, 1, 1, WINDOW).contiguous()
    rows = F.conv2d(maps, window, groups=count)
    return F.conv2d(rows, window.transpose(2, 3).contiguous(), groups=count)


def _halve(maps: Tensor) -> Tensor:
    """Return means of 2x2; an odd side gets a zero in front."""
    height, width = maps.shape[2:]
    return F.avg_pool2d(F.pad(maps, (width % 2, 0, height % 2, 0)), 2)


MEL_BANDS = {128: 16, 256: 32, 512: 64, 1024: 80, 2048: 160}
"""Window of an STFT -> mel bands of the loss at this scale, none narrower than the window resolves."""

MIRROR_LIMIT = max(MEL_BANDS) // 2
"""Audio must be longer than this, in samples, to be mirrored at its ends for the longest window."""

CONVERGENCE_WINDOWS = (512, 1024, 2048)
COMPLEX_WINDOWS = (256, 512)

LOUDNESS_WINDOW, LOUDNESS_BANDS = 512, 48
LISTENING = 79.0
"""Level at which sounds are heard, in dB SPL, as in P.862."""

QUIETEST = 0.1
"""Sounds of a smaller mean power, in squared units of a spectrum, are not amplified to it."""

ZWICKER = 0.23
"""Exponent of loudness over power."""


def spectral(reconstruction: Tensor, target: Tensor, rate: int) -> dict[str, Tensor]:
    """Return distances of audio in the short-time Fourier domain, hop a quarter of the window.

    Args:
        reconstruction: float32 [B, 1, N] in -1..1.
        target: the same shape.
        rate: sample rate in hertz.

    Returns:
        "mel": mean |difference of log10| of mel magnitudes, in decades, over windows of 128 to 2048 samples
        (Kong et al. 2020, "HiFi-GAN", eq. 3, at several scales as in Kumar et al. 2023, section 3.3);
        "convergence": |difference of magnitudes| / |magnitudes| in Frobenius norms (Arik et al. 2018, eq. 3;
        Yamamoto et al. 2020, eq. 4), over windows of 512 to 2048; "complex": mean |difference| of real and
        imaginary parts over the mean magnitude, windows of 256 and 512, magnitudes compressed to their square
        roots as in hearing (Braun and Tashev 2021, eq. 3, with an exponent of 1/2), the only term
        that depends on phases; "loudness": see `loudness`.
    """
    mel, convergence, complex_ = [], [], []
    for window, bands in MEL_BANDS.items():
        theirs, ours = spectra.stft(target[:, 0], window), spectra.stft(reconstruction[:, 0], window)
        if window in COMPLEX_WINDOWS:
            compressed = _compressed(theirs)
            difference = torch.view_as_real(_compressed(ours) - compressed).abs().mean()
            complex_.append(difference / (compressed.abs().mean() + 1e-3))
        magnitude, ours = theirs.abs(), (ours.real.square() + ours.imag.square() + 1e-12).sqrt()
        if window in CONVERGENCE_WINDOWS:
            error = torch.linalg.vector_norm(ours - magnitude, dim=(1, 2))
            scale = torch.linalg.vector_norm(magnitude, dim=(1, 2)).clamp(min=1e-2)
            convergence.append((error / scale).mean())
        decades = [spectra.log_mel(m, window, bands, rate) for m in (ours, magnitude)]
        mel.append(F.l1_loss(decades[0], decades[1]))
    return {
        "mel": torch.stack(mel).mean(),
        "convergence": torch.stack(convergence).mean(),
        "complex": torch.stack(complex_).mean(),
        "loudness": loudness(reconstruction, target, rate),
    }


def loudness(reconstruction: Tensor, target: Tensor, rate: int) -> Tensor:
    """Return the mean distance of specific loudness, as in PESQ (ITU-T P.862), without masking and asymmetry.

    The samples' power in bands of the Bark scale, of a target at LISTENING dB SPL, becomes loudness by
    Zwicker's law. Below the threshold of hearing (Terhardt 1979), where P.862 has no loudness, the law goes
    on, nearly flat, so that gradients remain. Of each frame, the RMS of the differences over bands.

    Args:
        reconstruction: float32 [B, 1, N] in -1..1.
        target: the same shape.
        rate: sample rate in hertz.

    Returns:
        In sone per band, without P.862's constant factor.
    """
    bank = spectra.bark_bank(LOUDNESS_WINDOW, LOUDNESS_BANDS, rate, target.device)
    window, hop = LOUDNESS_WINDOW, LOUDNESS_WINDOW // 4
    theirs, ours = (bank @ _power(spectra.stft(x[:, 0], window, hop)) for x in (target, reconstruction))
    level = 10 ** (LISTENING / 10) / theirs.sum(1).mean(1).clamp(min=QUIETEST)
    threshold = _threshold(LOUDNESS_BANDS, rate, target.device)
    heard = [_loudness(power * level[:, None, None] / threshold, threshold) for power in (ours, theirs)]
    return ((heard[0] - heard[1]).square().mean(1) + 1e-6).sqrt().mean()


def _power(spectrum: Tensor) -> Tensor:
    """Return squared magnitudes."""
    return spectrum.real.square() + spectrum.imag.square()


def _loudness(ratio: Tensor, threshold: Tensor) -> Tensor:
    """Return the loudness of a power in ratio to the threshold, by Zwicker's law."""
    return (threshold / 0.5) ** ZWICKER * ((0.5 + 0.5 * ratio) ** ZWICKER - 1)


@functools.cache
def _threshold(bands: int, rate: int, device: torch.device) -> Tensor:
    """Return the power at the threshold of hearing in bands of the Bark scale, [bands, 1]."""
    khz = spectra.bark_centres(bands, rate) / 1000
    decibels = 3.64 * khz**-0.8 - 6.5 * np.exp(-0.6 * (khz - 3.3) ** 2) + 1e-3 * khz**4
    with torch.inference_mode(False):
        return torch.from_numpy(10 ** (decibels / 10)).float().to(device)[:, None]


def _compressed(spectrum: Tensor) -> Tensor:
    """Return the spectrum with square roots of magnitudes and the same phases."""
    magnitude = (_power(spectrum) + 1e-9).sqrt()
    return magnitude.rsqrt() * spectrum
