"""Stand-ins for what the commands call: real bitstreams without networks, and a note of every call."""

import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import vqcodec
from typer.testing import CliRunner
from vqcodec import evaluation, media, weights
from vqcodec.bitstream import container
from vqcodec.cli.main import app
from vqcodec.errors import (
    DamageWarning,
    FidelityWarning,
    MediaError,
    MediaWarning,
    ModelError,
    TargetError,
    UsageError,
)

FINGERPRINT = "3f9a1c0011223344"
CARD = {
    "name": "fake-image",
    "medium": "image",
    "method": "VQ-VAE",
    "config": {"codes": 512},
    "fingerprint": FINGERPRINT,
    "parameters": 1234567,
    "training": {"chain": ["vqcodec train $DATA/photos -m fake-image"], "steps": 20000},
    "measured": {
        "validation": {
            "quality": 3.0,
            "bpp": 0.38,
            "psnr_db": 28.71,
            "codes_used": 509,
            "perplexity": 303.97,
            "files": 153,
        }
    },
}


SOUND_CARD = {
    "name": "fake-audio",
    "medium": "audio",
    "method": "VQ-VAE",
    "config": {"codes": 512},
    "fingerprint": FINGERPRINT,
    "parameters": 7654321,
    "measured": {"validation": {"quality": 3.0, "kbps": 2.04, "log_mel": 0.41, "si_sdr_db": 1.5}},
}


def invoke(*arguments, input=None, env=None):
    """Run the program; an exception that is not an exit is a failure of the test."""
    return CliRunner().invoke(app, [str(a) for a in arguments], input=input, env=env, catch_exceptions=False)


def done(*arguments: Any, **options: Any) -> Any:
    """Run a command that must succeed."""
    result = invoke(*arguments, **options)
    assert result.exit_code == 0, result.stderr
    return result


def records(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def bitstream(seed=0, **changes):
    """A real 8 x 4 bitstream of one raw chunk."""
    fields = {
        "model": "fake-image",
        "fingerprint": bytes.fromhex(FINGERPRINT),
        "geometry": container.ImageGeometry(8, 4, 3, 4),
        "chunks": [container.Chunk(container.RAW, bytes([seed % 256, 1, 2]))],
        "source": "PNG",
        "boxes": {"icc": b"profile"},
    }
    return container.pack(container.Bitstream(**(fields | changes)))


def sound_bitstream(seed=0, **changes):
    """A real bitstream of one raw chunk: a stereo sound of 2 seconds, whose right channel is silent."""
    geometry = container.AudioGeometry(88_200, 44_100, bytes((200, 0)))
    fields = {
        "model": "fake-audio",
        "geometry": geometry,
        "source": "WAV",
        "boxes": {"tags": b'{"title":"T"}'},
    }
    return bitstream(seed, **(fields | changes))


class Encoded:
    quality, codes = 3.0, None

    def __init__(self, data):
        header = container.read_info(data)
        self.data, self.model, self.geometry = data, header.model, header.geometry
        self.bpp, self.kbps = header.bpp, header.kbps


class Options(dict):
    @property
    def fast(self):
        return self["fast"]


class Fakes:
    """Calls made, and what to raise at the next ones."""

    def __init__(self):
        self.calls = []
        self.raises = {}
        self.cards = [CARD]

    def note(self, name, **arguments):
        self.calls.append((name, arguments))
        if name in self.raises:
            raise self.raises[name]

    def named(self, name):
        return [arguments for called, arguments in self.calls if called == name]


def install(monkeypatch):
    fakes = Fakes()

    def encode_file(source, options, *, progress):
        fakes.note("encode_file", source=source, **options)
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not data:
            raise MediaError("empty file", "copy the file again")
        if data.startswith(b"BAD"):
            raise MediaError("truncated: 489 of 1000 bytes", "copy the file again")
        if data.startswith(b"DEEP"):
            warnings.warn("16 bit: reduced to 8", MediaWarning, stacklevel=2)
        if data.endswith(b"LOUD"):
            warnings.warn("62 to 125 Hz decode 9 dB too loud", FidelityWarning, stacklevel=2)
        if data.startswith(b"BUG"):
            raise ZeroDivisionError("a bug")
        if options["target_size"] == 1:
            raise TargetError("smallest is 31 kB, target 1 B")
        progress(1, 1)
        if media.sound_format(data):
            if options["bpp"] is not None:
                raise UsageError("bpp does not apply to audio", "give target size, or quality")
            return Encoded(sound_bitstream(data[0]))
        return Encoded(bitstream(data[0]))

    def verify(encoded):
        fakes.note("verify")
        return 28.7 if encoded.bpp is not None else 1.5

    def decode(data, *, progress, **options):
        fakes.note("decode", data=data, **options)
        stream = container.parse(data, salvage=options["salvage"])
        for message in stream.damage:
            warnings.warn(message, DamageWarning, stacklevel=2)
        progress(1, 1)
        if isinstance(stream.geometry, container.AudioGeometry):
            tone = np.sin(np.arange(32_000) / 5, dtype=np.float32) / 2
            signal = np.stack((tone, np.zeros_like(tone)))
            return media.Audio(signal, 16_000, 44_100, 88_200, {"title": "T"}, "WAV").without(
                options["strip"]
            )
        return media.Image(np.full((4, 8, 3), 128, np.uint8))

    def choose_device(device):
        fakes.note("choose_device", device=device)
        if device.startswith("cuda"):
            raise UsageError("no CUDA device", "--device auto")

    def load(model=None, device="auto"):
        fakes.note("load", model=model, device=device)
        locate(model or "fake-image")

    def locate(model):
        if str(model) != "fake-image" and not Path(model).is_file():
            raise UsageError(f"no model '{model}'", "choose one of fake-image, or a .safetensors file")
        if Path(model).is_file() and Path(model).read_bytes().startswith(b"pickle"):
            raise UsageError(f"{model}: not a safetensors file", "only such files are loaded")
        return Path(__file__)

    def measure(sources, *, progress, on_error, **options):
        fakes.note("evaluate", sources=sources, **options)
        rows = []
        for source in sources:
            if source.read_bytes().startswith(b"BAD"):
                on_error(source, MediaError("truncated PNG", "copy the file again"))
                continue
            if media.sound_format(source.read_bytes()):
                rows.append({"file": str(source), "codec": "fake-audio", "q": 3.0, "bytes": 500, "kbps": 2.0})
                rows[-1] |= {"log_mel": 0.4, "si_sdr_db": 1.5, "pesq_wb": None, "stoi": 0.8}
                rows[-1] |= {"estimate_kbps": 1.9}
                continue
            rows.append({"file": str(source), "codec": "fake-image", "q": 3.0, "bytes": 100, "bpp": 0.5})
            rows[-1] |= {"psnr_db": float("inf"), "ms_ssim": None, "estimate_bpp": 0.49}
        progress(1, 1)
        return rows

    def summary(rows):
        means = [{"codec": "fake-image", "q": 3.0, "files": len(rows), "bpp": 0.5, "psnr_db": 40.0}]
        means[0] |= {"estimate_bpp": 0.49}
        if any("kbps" in row for row in rows):
            means.append(
                {"codec": "fake-audio", "q": 3.0, "files": 1, "kbps": 2.0, "log_mel": 0.4, "decode_x": 30.0}
            )
        return means if any("bpp" in row for row in rows) else means[1:]

    def bd_rates(rows):
        fakes.note("bd_rates", rows=rows)
        differences = {
            "codec": "fake-image",
            "against": "jpeg",
            "files": 1,
            "psnr_db": -12.5,
            "ms_ssim": None,
        }
        return [differences] if sum("bpp" in row for row in rows) > 1 else []

    def train(data=(), *, report, **options):
        fakes.note("train", data=data, **options)
        report({"event": "start", "folder": "runs/fake-image-1", "skipped": ["a.png"]})
        figure = {"log_mel": 0.41} if options["model"] == "vqvae-audio" else {"psnr_db": 27.1}
        report({"event": "step", "step": 100, "progress": 0.5, "loss": 0.01234567, **figure})
        if "interrupt" in fakes.raises:
            raise KeyboardInterrupt
        if fakes.raises.get("nan"):
            raise fakes.raises["nan"]
        best = Path("runs/fake-image-1/best.st")
        improved = "worse" not in fakes.raises
        return types.SimpleNamespace(folder=best.parent, best=best, codes_files=True, improved=improved)

    modules = {
        "pipeline": {
            "EncodeOptions": Options,
            "encode_file": encode_file,
            "analyse_file": lambda source, options: encode_file(source, options, progress=lambda *_: None),
            "code": lambda files, fast: [],
            "verify": verify,
            "decode": decode,
        },
        "weights": {
            "load": load,
            "locate": locate,
            "choose_device": choose_device,
            "DEFAULTS": {"image": "fake-image", "audio": "fake-audio"},
            "default": lambda medium, tune: f"fake-{medium}" + "-psnr" * (tune == "psnr"),
            "shipped": lambda: [*fakes.cards],
            "folder": lambda: Path("nowhere"),
            "read_json": lambda path: CARD,
            "operating_points": weights.operating_points,
        },
        "evaluation": {
            "__path__": evaluation.__path__,
            "evaluate": measure,
            "summary": summary,
            "figures": evaluation.figures,
            "bd_rates": bd_rates,
            "Gallery": evaluation.Gallery,
            "write_report": lambda rows, path, **options: fakes.note("write_report", path=path, **options),
            "plot": lambda rows, path: fakes.note("plot", path=path),
            "write_csv": lambda rows, path: fakes.note("write_csv", rows=rows, path=path),
            "write_json": lambda rows, path: fakes.note("write_json", rows=rows, path=path),
        },
        "training": {"train": train},
    }
    for name, functions in modules.items():
        module = types.ModuleType(f"vqcodec.{name}")
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, f"vqcodec.{name}", module)
        monkeypatch.setitem(vars(vqcodec), name, module)
    return fakes


__all__ = [
    "CARD",
    "FINGERPRINT",
    "Encoded",
    "Fakes",
    "SOUND_CARD",
    "ModelError",
    "bitstream",
    "install",
    "invoke",
    "records",
    "sound_bitstream",
]
