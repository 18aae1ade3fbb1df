"""Stand-ins for what the commands call: real bitstreams without networks, and a note of every call."""

import json
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import vqcodec
from typer.testing import CliRunner
from vqcodec import container, media
from vqcodec.cli.main import app
from vqcodec.errors import DamageWarning, MediaError, MediaWarning, ModelError, TargetError, UsageError

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
            "pictures": 153,
        }
    },
}


def invoke(*arguments, input=None, env=None):
    """Run the program; an exception that is not an exit is a failure of the test."""
    return CliRunner().invoke(app, [str(a) for a in arguments], input=input, env=env, catch_exceptions=False)


def records(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def bitstream(seed=0, **changes):
    """A real 8 x 4 bitstream of one raw chunk."""
    fields = {
        "model": "fake-image",
        "fingerprint": bytes.fromhex(FINGERPRINT),
        "geometry": container.Geometry(8, 4, 3, 4),
        "chunks": [container.Chunk(container.RAW, bytes([seed % 256, 1, 2]))],
        "source": "PNG",
        "boxes": {"icc": b"profile"},
    }
    return container.pack(container.Bitstream(**(fields | changes)))


class Encoded:
    model, quality, width, height, channels, codes = "fake-image", 3.0, 8, 4, 3, None

    def __init__(self, data):
        self.data = data
        self.bpp = 8 * len(data) / 32


class Fakes:
    """Calls made, and what to raise at the next ones."""

    def __init__(self):
        self.calls = []
        self.raises = {}

    def note(self, name, **arguments):
        self.calls.append((name, arguments))
        if name in self.raises:
            raise self.raises[name]

    def named(self, name):
        return [arguments for called, arguments in self.calls if called == name]


def install(monkeypatch):
    fakes = Fakes()

    def encode_file(source, *, progress, **options):
        fakes.note("encode_file", source=source, **options)
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        if not data:
            raise MediaError("empty file", "copy the file again")
        if data.startswith(b"BAD"):
            raise MediaError("truncated: 489 of 1000 bytes", "copy the file again")
        if data.startswith(b"DEEP"):
            warnings.warn("16 bit: reduced to 8", MediaWarning, stacklevel=2)
        if data.startswith(b"BUG"):
            raise ZeroDivisionError("a bug")
        if options["target_size"] == 1:
            raise TargetError("smallest is 31 kB, target 1 B")
        progress(1, 1)
        return Encoded(bitstream(data[0]))

    def verify(encoded):
        fakes.note("verify")
        return 28.7

    def decode(data, *, progress, **options):
        fakes.note("decode", data=data, **options)
        stream = container.parse(data, salvage=options["salvage"])
        if None in stream.chunks:
            warnings.warn("chunk 1 of 1 filled with grey", DamageWarning, stacklevel=2)
        progress(1, 1)
        return media.Image(np.full((4, 8, 3), 128, np.uint8))

    def load(model=None, device="auto"):
        fakes.note("load", model=model, device=device)
        locate(model or "fake-image")
        if device.startswith("cuda"):
            raise UsageError("no CUDA device", "--device auto")

    def locate(model):
        if str(model) != "fake-image" and not Path(model).is_file():
            raise UsageError(f"no model '{model}'", "one of fake-image, or a .safetensors file")
        if Path(model).is_file() and Path(model).read_bytes().startswith(b"pickle"):
            raise UsageError(f"{model}: not a safetensors file", "only such files are loaded")
        return Path(__file__)

    def evaluate(sources, *, progress, on_error, **options):
        fakes.note("evaluate", sources=sources, **options)
        rows = []
        for source in sources:
            if source.read_bytes().startswith(b"BAD"):
                on_error(source, MediaError("truncated PNG", "copy the file again"))
                continue
            rows.append({"file": str(source), "codec": "fake-image", "q": 3.0, "bytes": 100, "bpp": 0.5})
            rows[-1] |= {"psnr_db": float("inf"), "ms_ssim": None, "estimate_bpp": 0.49}
        progress(1, 1)
        return rows

    def summary(rows):
        return [{"codec": "fake-image", "q": 3.0, "pictures": len(rows), "bpp": 0.5, "estimate_bpp": 0.49}]

    def train(data=(), *, report, **options):
        fakes.note("train", data=data, **options)
        report({"event": "start", "folder": "runs/fake-image-1", "skipped": ["a.png"]})
        report({"event": "step", "step": 100, "progress": 0.5, "loss": 0.01234567, "psnr_db": 27.1})
        if "interrupt" in fakes.raises:
            raise KeyboardInterrupt
        if fakes.raises.get("nan"):
            raise fakes.raises["nan"]
        return types.SimpleNamespace(folder=Path("runs/fake-image-1"), best=Path("runs/fake-image-1/best.st"))

    modules = {
        "pipeline": {"encode_file": encode_file, "verify": verify, "decode": decode},
        "weights": {
            "load": load,
            "locate": locate,
            "DEFAULTS": {"image": "fake-image"},
            "shipped": lambda: [CARD],
            "folder": lambda: Path("nowhere"),
            "read_card": lambda path: CARD,
        },
        "evaluation": {
            "evaluate": evaluate,
            "summary": summary,
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
    "ModelError",
    "bitstream",
    "install",
    "invoke",
    "records",
]
