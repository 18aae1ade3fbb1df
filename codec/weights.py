"""Load and save weights: safetensors with the model card in its metadata, and a fingerprint over both."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as pack

from .bitstream.container import LEARNED
from .errors import ModelError, UsageError
from .files import atomically

if TYPE_CHECKING:
    from .models.base import Card, Model
    from .models.card import Figures, Json

DEFAULTS = {"image": "vae-image", "audio": "vqvae-audio", "set": "vae-bits"}
"""Medium -> default model of `encode`."""

TUNES = {"visual": {"image": DEFAULTS["image"]}, "psnr": {"image": "vae-image-psnr"}}
"""What models are tuned for -> medium -> model."""

UNSAVED = ("discriminator.", "layers.")
"""Prefixes of the names of tensors used in training alone; moving averages of codebooks are, too."""

MINIMUM_HALF = 1024
"""Tensors of at least this many elements are stored in half precision."""


def folder() -> Path:
    """Return the folder of the shipped weights, in a checkout as in an installed package."""
    return Path(str(resources.files("vqcodec.pretrained")))


def shipped() -> list[Json]:
    """Return the cards of the shipped models as JSON objects, sorted by name."""
    return [read_json(path) for path in sorted(folder().glob("*.safetensors"))]


def default(medium: str, tune: str | None = None) -> str:
    """Return the name of the default model of a medium.

    Args:
        medium: "image", "audio" or "set".
        tune: "visual" or "psnr": what its training sought; None: the default.

    Raises:
        UsageError: no such tune, or none of this medium.
    """
    if tune is None:
        return DEFAULTS[medium]
    if tune not in TUNES:
        raise UsageError(f"no tune '{tune}'", f"give {' or '.join(TUNES)}")
    if medium not in TUNES[tune]:
        raise UsageError(f"tune={tune} is for images, not for {medium}", "leave it out")
    return TUNES[tune][medium]


def locate(model: str | os.PathLike[str]) -> Path:
    """Return the path of a shipped model's weights, or the path itself.

    Raises:
        UsageError: neither a shipped model nor a file.
    """
    path = Path(model)
    named = folder() / f"{path.name}.safetensors"
    if str(model) == path.name and named.is_file():
        return named
    if path.is_file():
        return path
    names = ", ".join(p.stem for p in sorted(folder().glob("*.safetensors")))
    raise UsageError(
        f"no model '{model}'",
        f"choose one of {names or '(none shipped)'}, or a .safetensors file (train -m NAME writes one)",
    )


def read_json(path: str | os.PathLike[str]) -> Json:
    """Return the model card of a weights file as a JSON object, without reading tensors or importing torch.

    Raises:
        UsageError: not a safetensors file of this program.
    """
    return _open(Path(path))[0]


def read_card(path: str | os.PathLike[str]) -> Card:
    """Return the model card of a weights file, without reading tensors.

    Raises:
        UsageError: not a safetensors file of this program.
    """
    from .models.base import Card

    return Card.from_json(read_json(path))


def read_tensors(model: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Return the tensors of a weights file as they are stored, without importing torch.

    Raises:
        UsageError: no such model, or not a safetensors file of this program.
    """
    file = _open(locate(model))[1]
    names: list[str] = file.keys()  # type: ignore[no-untyped-call]
    return {name: file.get_tensor(name) for name in names}  # type: ignore[no-untyped-call]


def operating_points(card: Figures) -> list[Json]:
    """Return the measured operating points of a model; measurements of its learned prior take precedence.

    Returns:
        Dicts with "quality", and as far as measured "bpp" and "psnr_db", or "kbps" and "log_mel".
    """
    if several := card.get("points"):
        return [*several]
    both = (part.get("measured", {}).get("validation", {}) for part in (card, card.get("learned", {})))
    measured = {name: figure for part in both for name, figure in part.items()}
    return [measured] if "quality" in measured else []


def load(model: str | os.PathLike[str], device: str = "auto") -> Model:
    """Load a model for coding, cached by file and device.

    Args:
        model: a shipped model's name or a .safetensors file.
        device: "auto", "cpu", "cuda[:N]" or "mps".

    Raises:
        UsageError: no such model, not a weights file, or no such device.
    """
    import torch

    path = locate(model).resolve()
    with torch.inference_mode(False):  # the cached tensors may need gradients later
        return _load(path, path.stat().st_mtime_ns, choose_device(device))


def choose_device(device: str) -> str:
    """Resolve "auto" to a device, or check that a named one is available.

    Raises:
        UsageError: the device is not available.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.partition(":")[0]
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"unknown device '{device}'", "choose one of auto, cpu, cuda, cuda:N, mps")
    if kind == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device", "use --device auto")
    if kind == "cuda" and int(device.partition(":")[2] or 0) >= torch.cuda.device_count():
        raise UsageError(f"no CUDA device {device.partition(':')[2]}", "use --device auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError("no MPS device", "use --device auto")
    return device


def save(model: Model, card: Card, path: Path) -> Card:
    """Write a weights file: tensors, and the card with the fingerprint. It is complete or absent.

    Returns:
        The card as written.
    """
    from .priors.chain import ChainPrior
    from .priors.learned import LearnedPrior

    tensors = exported(model)
    card = replace(card, fingerprint=fingerprint(tensors, model.decoding, card.config))
    learned = model.priors.get(LEARNED)
    if isinstance(learned, LearnedPrior | ChainPrior) and card.learned is not None:
        card = replace(card, learned={**card.learned, "fingerprint": learned.fingerprint.hex()})
    data = pack(tensors, {"card": json.dumps(card.to_json())})
    with atomically(path) as file:
        file.write(data)
    return card


def _unsaved(name: str) -> bool:
    """Return whether a tensor is used in training alone."""
    return name.startswith(UNSAVED) or name.rpartition(".")[2].startswith("ema_")


def exported(model: Model) -> dict[str, np.ndarray]:
    """Return the tensors of a model as stored: networks in half precision, others unchanged."""
    tensors: dict[str, np.ndarray] = {}
    for name, tensor in model.state_dict().items():
        if _unsaved(name) or name.startswith(model.in_file_as_integers):
            continue
        half = name.startswith(model.networks) and tensor.numel() >= MINIMUM_HALF
        array = tensor.detach().cpu().contiguous().numpy()
        tensors[name] = array.astype(np.float16) if half else array
    for prior in model.priors.values():
        tensors.update(prior.to_tensors())
    return {**tensors, **model.integer_tensors()}


def fingerprint(tensors: Mapping[str, np.ndarray], prefixes: tuple[str, ...], config: Figures) -> str:
    """Return 16 hexadecimal digits of the SHA-256 over everything that decoding depends on."""
    digest = hashlib.sha256(json.dumps(dict(config), sort_keys=True).encode())
    for name in sorted(n for n in tensors if n.startswith((*prefixes, "prior."))):
        array = tensors[name]
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        digest.update(f"{name} {array.dtype.name} {array.shape}".encode())
        digest.update(np.ascontiguousarray(little).tobytes())
    return digest.hexdigest()[:16]


def _open(path: Path) -> tuple[Json, safe_open]:
    try:
        file = safe_open(path, framework="numpy")
        card = json.loads((file.metadata() or {})["card"])  # type: ignore[no-untyped-call]
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", card["name"]):
            raise ValueError("an invalid name")
        learned = card.get("learned", {})
        if not isinstance(learned, dict) or not isinstance(learned.get("config", {}), dict):
            raise ValueError("an invalid description of the prior")
        card["medium"], card["method"], card["config"], card["fingerprint"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UsageError(
            f"{path}: not a safetensors file of vqcodec", "only such files are loaded, never pickles"
        ) from error
    return card, file


@functools.lru_cache(maxsize=4)
def _load(path: Path, _modified: int, device: str) -> Model:
    import torch

    from .models import from_card
    from .models.base import Card

    values, file = _open(path)
    try:
        card = Card.from_json(values)
        names: list[str] = file.keys()  # type: ignore[no-untyped-call]
        tensors = {name: file.get_tensor(name) for name in names}  # type: ignore[no-untyped-call]
        model = from_card(card).with_integers(tensors)
        state = model.state_dict()
        for name in state:
            if not (_unsaved(name) or name.startswith(model.in_file_as_integers)):
                state[name] = torch.from_numpy(tensors[name].astype(np.float32))
        model.load_state_dict(state)
        model = model.equipped(card, model.priors_from(card, tensors))
    except ModelError as error:
        raise ModelError(f"{path}: {error.message}", error.hint or "copy the file again") from error
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: weights do not fit their card", "copy the file again") from error
    if fingerprint(tensors, model.decoding, card.config) != card.fingerprint:
        raise ModelError(f"{path}: weights do not match their fingerprint", "copy the file again")
    model.eval().requires_grad_(False)
    model.to(torch.device(device))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model
