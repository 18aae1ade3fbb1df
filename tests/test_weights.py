from __future__ import annotations

import copy
import json
import pickle
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import draw
from safetensors.numpy import load_file, save_file
from vqcodec import pipeline, weights
from vqcodec.bitstream.container import STATIC
from vqcodec.errors import ModelError, UsageError, VqcodecError


def rewrite(source: str, target: Path, tensors: Mapping[str, np.ndarray], **card: Any) -> Path:
    """The weights of `source` with some tensors and some fields of the card exchanged."""
    saved = weights.read_json(source) | card
    save_file({**load_file(source), **tensors}, target, {"card": json.dumps(saved)})
    return target


def test_save_and_load(small: str, tmp_path: Path) -> None:
    model = weights.load(small)
    assert not model.training and not any(p.requires_grad for p in model.parameters())
    target = tmp_path / "copy.safetensors"
    card = weights.save(model, model.card, target)
    assert card == model.card == weights.read_card(target)
    loaded = weights.load(target)
    state = loaded.state_dict()
    for name, tensor in model.state_dict().items():
        if "ema" not in name:
            assert torch.equal(tensor, state[name]), name
    assert np.array_equal(loaded.priors[STATIC].tables, model.priors[STATIC].tables)
    assert np.array_equal(loaded.priors[STATIC].classes, model.priors[STATIC].classes)
    assert Path(small).read_bytes() == target.read_bytes(), "the same model is the same file"
    assert [path.name for path in tmp_path.iterdir()] == ["copy.safetensors"]


def test_only_networks_are_stored_in_half_precision(small: str) -> None:
    tensors = load_file(small)
    half = {name for name, array in tensors.items() if array.dtype == np.float16}
    assert half == {
        name
        for name, array in tensors.items()
        if name.startswith(("encoder.", "decoder.")) and array.size >= weights.MINIMUM_HALF
    }
    assert half
    full = {"quantizer.codebook", "pca_mean", "pca_components", "pca_scale"}
    assert all(tensors[name].dtype == np.float32 for name in full)
    assert {tensors["prior.tables"].dtype, tensors["prior.classes"].dtype} == {np.dtype("u2"), np.dtype("u1")}
    assert not any("ema" in name for name in tensors), "of use to a training only"


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("decoder.0.weight", True),
        ("decoder.0.bias", True),
        ("quantizer.codebook", True),
        ("pca_mean", True),
        ("pca_scale", True),
        ("prior.tables", True),
        ("prior.classes", True),
        ("encoder.1.weight", False),
        ("encoder.1.bias", False),
    ],
)
def test_fingerprint_covers_what_decodes_and_nothing_else(small: str, name: str, counts: bool) -> None:
    model = weights.load(small)
    tensors = weights.exported(model)
    print_before = weights.fingerprint(tensors, model.decoding, model.card.config)
    assert print_before == model.card.fingerprint
    assert len(bytes.fromhex(print_before)) == 8
    changed = tensors[name].copy()
    changed.reshape(-1)[-1] += 1
    now = weights.fingerprint({**tensors, name: changed}, model.decoding, model.card.config)
    assert (now != print_before) is counts


def test_fingerprint_covers_settings_shapes_and_types_but_no_byte_order(small: str) -> None:
    model = weights.load(small)
    tensors, config = weights.exported(model), model.card.config

    def taken(**changes: Any) -> str:
        return weights.fingerprint({**tensors, **changes}, model.decoding, config)

    codebook = tensors["quantizer.codebook"]
    before = taken()
    assert weights.fingerprint(tensors, model.decoding, {**config, "codes": 65}) != before
    assert taken(**{"quantizer.codebook": codebook.T}) != before
    assert taken(**{"quantizer.codebook": codebook.view(np.int32)}) != before
    assert taken(**{"quantizer.codebook": codebook.astype(">f4")}) == before


def test_encoder_may_be_exchanged(small: str, tmp_path: Path) -> None:
    """A better encoder writes files that every decoder of the same fingerprint reads."""
    model = copy.deepcopy(weights.load(small))
    with torch.no_grad():
        model.encoder[1].bias.add_(0.01)
    card = weights.save(model, model.card, tmp_path / "other.safetensors")
    assert card.fingerprint == weights.load(small).card.fingerprint
    data = pipeline.encode(draw(40, 30), model=tmp_path / "other.safetensors")
    assert pipeline.decode(data, model=small).width == 40


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("executed"),)


@pytest.mark.parametrize(
    "kind", ["torch", "zip", "bare", "empty", "text", "truncated", "foreign", "cardless"]
)
def test_files_that_are_no_weights_are_refused(
    kind: str, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ("model.pt" if kind in ("torch", "zip") else "model.safetensors")
    if kind in ("torch", "zip"):
        torch.save({"w": Evil()}, path, _use_new_zipfile_serialization=kind == "zip")
    elif kind == "bare":
        path.write_bytes(pickle.dumps(Evil()))
    elif kind == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif kind == "truncated":
        content = Path(small).read_bytes()
        path.write_bytes(content[: len(content) // 2])
    elif kind == "foreign":
        save_file({"w": np.zeros(3, np.float32)}, path)
    elif kind == "cardless":
        save_file({"w": np.zeros(3, np.float32)}, path, {"card": '["no", "card"]'})
    else:
        path.touch()
    for use in (weights.load, weights.read_card):
        with pytest.raises(UsageError, match="not a safetensors file of vqcodec") as caught:
            use(path)
        assert caught.value.exit_code == 2
        assert str(path) in caught.value.message
        assert "never pickles" in caught.value.hint
    assert not Path("executed").exists()


@pytest.mark.parametrize("name", ["decoder.0.weight", "quantizer.codebook", "prior.classes"])
def test_tampered_tensors_are_refused(small: str, tmp_path: Path, name: str) -> None:
    array = load_file(small)[name].copy()
    flat = array.reshape(-1)
    flat[0] = flat[0] + 1 if name != "prior.classes" else (flat[0] + 1) % 2
    path = rewrite(small, tmp_path / "tampered.safetensors", {name: array})
    with pytest.raises(ModelError, match="do not match their fingerprint") as caught:
        weights.load(path)
    assert caught.value.exit_code == 1
    assert "copy the file again" in caught.value.hint


def test_one_flipped_bit_on_the_disk_is_noticed(small: str, tmp_path: Path) -> None:
    content = bytearray(Path(small).read_bytes())
    header = 8 + int.from_bytes(content[:8], "little")
    at = json.loads(content[8:header])["quantizer.codebook"]["data_offsets"][0]
    content[header + at + 5] ^= 4
    path = tmp_path / "flipped.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="do not match their fingerprint"):
        weights.load(path)


@pytest.mark.parametrize(
    ("tensors", "card"),
    [
        ({"quantizer.codebook": np.zeros((3, 8), np.float32)}, {}),
        ({"quantizer.codebook": np.zeros((64, 8), "S1")[:, :0].astype(np.uint8)}, {}),
        ({"prior.tables": np.zeros((3, 3, 64), np.uint16)}, {}),
        ({"prior.classes": np.zeros(64, np.float32)}, {}),
        ({}, {"config": {"codes": 64, "no_such_setting": 1}}),
        ({}, {"config": {"codes": "many"}}),
        ({}, {"config": []}),
        (
            {"prior.tables": np.full((2, 2, 4), 2**14 - 1, "u2"), "prior.classes": np.zeros(4, "u1")},
            {},
        ),
    ],
)
def test_weights_that_contradict_their_card(
    small: str, tmp_path: Path, tensors: dict[str, np.ndarray], card: dict[str, Any]
) -> None:
    path = rewrite(small, tmp_path / "odd.safetensors", tensors, **card)
    with pytest.raises(ModelError) as caught:
        weights.load(path)
    assert caught.value.exit_code == 1


def test_a_method_to_come(small: str, tmp_path: Path) -> None:
    for field in ({"method": "VQ-VAE-3"}, {"medium": "video"}):
        path = rewrite(small, tmp_path / "later.safetensors", {}, **field)
        with pytest.raises(
            ModelError, match="small is a VQ-VAE(-3)? for (image|video), unknown here"
        ) as caught:
            weights.load(path)
        assert caught.value.hint == "upgrade vqcodec"


def test_a_missing_tensor_is_told(small: str, tmp_path: Path) -> None:
    tensors = load_file(small)
    del tensors["decoder.0.bias"]
    path = tmp_path / "less.safetensors"
    save_file(tensors, path, {"card": json.dumps(weights.read_json(small))})
    with pytest.raises(ModelError, match="weights do not fit their card"):
        weights.load(path)


def test_unknown_name_lists_the_names(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no model 'vqvae-imag'") as caught:
        weights.load("vqvae-imag")
    assert caught.value.exit_code == 2
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    monkeypatch.setattr(weights, "folder", lambda: shipped)
    with pytest.raises(UsageError, match=r"\(none shipped\)"):
        weights.load("vqvae-image")
    for name in ("b-image", "a-image"):
        shutil.copy(small, shipped / f"{name}.safetensors")
    with pytest.raises(UsageError, match="choose one of a-image, b-image, or a .safetensors file"):
        weights.load("c-image")
    assert weights.locate("a-image") == shipped / "a-image.safetensors"
    assert weights.load("a-image").card == weights.load(small).card
    assert weights.shipped() == [weights.read_json(small)] * 2
    # Only a bare name is looked up among the shipped ones.
    with pytest.raises(UsageError, match="no model"):
        weights.locate("./a-image")
    with pytest.raises(UsageError, match="no model"):
        weights.locate(tmp_path)


def test_loaded_once(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = weights.load(small)
    assert weights.load(Path(small)) is first
    assert weights.load(small, "cpu") is first
    monkeypatch.chdir(Path(small).parent)
    assert weights.load("best.safetensors") is first
    opened: list[Path] = []
    monkeypatch.setattr(weights, "_open", lambda path: opened.append(path) or (_ for _ in ()).throw(KeyError))
    for number in range(3):
        pipeline.encode(draw(12, 8, number), model=small)
    assert opened == []


def test_a_replaced_file_is_loaded_again(small: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    shutil.copy(small, path)
    first = weights.load(path)
    changed = copy.deepcopy(first)
    with torch.no_grad():
        changed.quantizer.codebook.add_(1)
    weights.save(changed, changed.card, path)
    assert weights.load(path).card.fingerprint != first.card.fingerprint


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("tpu", "unknown device 'tpu'"),
        ("", "unknown device ''"),
        ("cpu:x", "unknown device 'cpu:x'"),
        ("cuda:x", "unknown device 'cuda:x'"),
        ("cuda", "no CUDA device"),
        ("cuda:1", "no CUDA device"),
        ("mps", "no MPS device"),
    ],
)
def test_devices(small: str, device: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UsageError, match=message) as caught:
        weights.load(small, device)
    assert caught.value.exit_code == 2
    assert caught.value.hint in ("use --device auto", "choose one of auto, cpu, cuda, cuda:N, mps")
    assert weights.choose_device("auto") == "cpu"


def test_devices_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert weights.choose_device("auto") == "cuda"
    assert weights.choose_device("cuda:1") == "cuda:1"
    with pytest.raises(UsageError, match="no CUDA device 2"):
        weights.choose_device("cuda:2")


def test_card_says_what_the_model_is(small: str) -> None:
    card = weights.read_json(small)
    assert {"name", "medium", "method", "config", "fingerprint", "parameters", "measured", "training"} <= set(
        card
    )
    assert (card["medium"], card["method"], card["config"]["codes"]) == ("image", "VQ-VAE", 64)
    assert card["parameters"] == sum(p.numel() for p in weights.load(small).parameters())
    assert issubclass(ModelError, VqcodecError)
