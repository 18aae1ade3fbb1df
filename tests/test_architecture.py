"""The rules of how the package is laid out, each held over the source itself."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import vqcodec
from vqcodec import errors

ROOT = Path(__file__).parents[1]
FOLDERS = {"codec": "", "cli": "cli", "pretrained": "pretrained"}

ORDER = [
    "errors",
    "files",
    "figures",
    "bitstream",
    "media",
    "metrics",
    "priors",
    "placeholders",
    "models",
    "transform",
    "weights",
    "coding",
    "thumbnails",
    "pipeline",
    "evaluation",
    "training",
    "cli",
]
"""The folders of the package, from the ground up: a module imports from its own and those before it."""

ANYWHERE = {"vqcodec", "__main__", "pretrained"}
"""The lazy face of the package, its entry point, and a folder of weights."""

STANDARD_LIBRARY_ALONE = {"errors", "files", "figures", "bitstream"}
"""Folders that read headers without waiting for anything."""

WITHOUT_TORCH = {*STANDARD_LIBRARY_ALONE, "media", "cli", "placeholders", "thumbnails", "transform.loudness"}
"""Folders and modules that import no torch at module level."""


def modules() -> dict[str, ast.Module]:
    """Dotted name below vqcodec -> syntax tree, of every source file."""
    found = {}
    for folder, prefix in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = [prefix] if prefix else []
            parts += path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join(part for part in parts if part != "__init__") or "vqcodec"
            found[name] = ast.parse(path.read_text(), str(path))
    return found


MODULES = modules()


def is_package(name: str) -> bool:
    """Whether a module is the __init__ of a folder, from where one dot means itself."""
    return name in ("vqcodec", *FOLDERS.values()) or any(other.startswith(f"{name}.") for other in MODULES)


def imported(name: str, tree: ast.AST) -> Iterator[str]:
    """Absolute dotted names of all that is imported anywhere inside a tree; ours begin with vqcodec."""
    here = [] if name == "vqcodec" else name.split(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                yield f"{node.module}.{alias.name}"
        elif isinstance(node, ast.ImportFrom):
            up = node.level - is_package(name)
            base = ["vqcodec", *here[: len(here) - up], *(node.module or "").split(".")]
            for alias in node.names:
                yield ".".join([part for part in base if part] + [alias.name])


def at_module_level(tree: ast.Module) -> ast.Module:
    """What runs on import: without functions, and without what only type checkers see."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:  # noqa: N802
            return None

        visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

        def visit_If(self, node: ast.If) -> ast.AST | None:  # noqa: N802
            return None if "TYPE_CHECKING" in ast.unparse(node.test) else self.generic_visit(node)

    return Strip().visit(ast.parse(ast.unparse(tree)))


def head(dotted: str) -> str:
    """The part of the package that a module of ours belongs to: media for vqcodec.media.reading."""
    return dotted.split(".")[0]


def edges() -> list[tuple[str, str, str]]:
    """(module, its part, part that it imports) for every import of ours, those in functions included."""
    found = []
    for name, tree in MODULES.items():
        for target in imported(name, tree):
            if target.startswith("vqcodec.") and head(name) not in ANYWHERE:
                found.append((name, head(name), target.split(".")[1]))
    return found


def test_the_walk_sees_what_it_should() -> None:
    """The other tests would pass over an empty list too."""
    seen = {(name, target) for name, _, target in edges()}
    assert {
        ("pipeline", "bitstream"),
        ("weights", "models"),  # inside a function
        ("models.vqvae.method", "priors"),  # for type checkers, three dots
        ("models.base", "priors"),
        ("training.validation.image", "pipeline"),
        ("cli.encode", "pipeline"),
        ("media.reading", "errors"),
    } <= seen
    assert len(MODULES) > 60
    assert (
        is_package("models.vqvae")
        and is_package("training.datasets")
        and not is_package("models.vqvae.method")
    )
    assert "torch" in {head(target) for target in imported("x", ast.parse("def f():\n import torch.nn"))}


def test_every_module_has_its_place() -> None:
    assert {head(name) for name in MODULES} == {*ORDER, *ANYWHERE}


def test_imports_go_in_one_direction() -> None:
    wrong = [
        f"{name} imports {target}"
        for name, part, target in edges()
        if ORDER.index(target) > ORDER.index(part)
    ]
    assert not wrong


def below(name: str, parts: set[str]) -> bool:
    """Whether a module is one of these, or in one of these folders."""
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def test_no_torch_at_module_level() -> None:
    names = [name for name in MODULES if below(name, WITHOUT_TORCH)]
    assert len(names) > 30
    for name in names:
        heavy = {head(target) for target in imported(name, at_module_level(MODULES[name]))} & {
            "torch",
            "safetensors",
        }
        assert not heavy, name
    imports = [name for name in names if head(name) != "cli"]  # those are imported by test_cli_main
    code = (
        f"import sys, importlib\nfor name in {imports!r}:\n    importlib.import_module('vqcodec.' + name)\n"
        "print('torch' in sys.modules)"
    )
    assert run(code) == "False\n"


def test_headers_need_the_standard_library_alone() -> None:
    for name in MODULES:
        if below(name, STANDARD_LIBRARY_ALONE):
            foreign = {head(target) for target in imported(name, MODULES[name])} - {"vqcodec", "__future__"}
            assert foreign <= set(sys.stdlib_module_names), name


CONTRACT = {"Model", "LatentModel", "OperatingPoint", "Trainable", "Discriminator"}
"""Classes that say what every model, or every one with a latent vector per picture, offers."""


def kinds_of_model() -> set[str]:
    """Names of the classes below the contract, whatever they are derived from in turn."""
    classes = {
        node.name: {ast.unparse(base).rpartition(".")[2] for base in node.bases}
        for name, tree in MODULES.items()
        if below(name, {"models", "training.prior"})
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    found: set[str] = set()
    while more := {name for name, bases in classes.items() if bases & (CONTRACT | found)} - CONTRACT - found:
        found |= more
    return found


def test_nothing_outside_asks_which_class_a_model_is() -> None:
    """Models and weights alone know the classes; all others go by the contract."""
    kinds = kinds_of_model()
    assert {"VQVAE", "WaveNetVQVAE", "VAE", "PPCACodec", "VariableRatePoint", "AutoregressivePoint"} <= kinds
    wrong = []
    for name, tree in MODULES.items():
        if below(name, {"models", "weights", "training.prior"}):
            continue
        for node in ast.walk(tree):
            used = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
            if used in kinds - {"PriorFit"}:
                wrong.append(f"{name}:{node.lineno} {used}")
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("isinstance", "issubclass", "type"):
                asked = {part.rpartition(".")[2] for part in ast.unparse(node).split()}
                wrong += [f"{name}:{node.lineno} {kind}" for kind in kinds if kind in asked]
    assert not wrong


def test_only_the_command_line_prints() -> None:
    wrong = []
    for name, tree in MODULES.items():
        for node in ast.walk(tree):
            if head(name) == "cli":
                continue
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
                wrong.append(f"{name}:{node.lineno} print")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
                wrong.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    assert not wrong


def test_nothing_is_ever_unpickled() -> None:
    forbidden = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    wrong = []
    for name, tree in MODULES.items():
        wrong += [f"{name} imports {t}" for t in imported(name, tree) if head(t) in forbidden]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "eval", "exec"):
                wrong.append(f"{name}:{node.lineno} {ast.unparse(node.func)}")
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                wrong.append(f"{name}:{node.lineno} allow_pickle")
        wrong += [f"{name} imports {t}" for t in imported(name, tree) if t == "torch.load"]
    assert not wrong


def test_what_may_not_load_is_imported_in_one_place() -> None:
    """torchaudio's wheels fail beside a torch for the CPU; libsndfile reads what was cut without a word."""
    files = {"media", "evaluation"}
    for foreign, homes in (("torchaudio", {"metrics"}), ("soundfile", files), ("soxr", files)):
        found = {
            head(name)
            for name, tree in MODULES.items()
            if foreign in {head(target) for target in imported(name, tree)}
            or any(isinstance(node, ast.Constant) and node.value == foreign for node in ast.walk(tree))
        }
        assert found == homes, foreign


def test_only_some_modules_touch_the_disk() -> None:
    """Samples -> codes -> bytes are functions without files."""
    pure = {"errors", "bitstream", "metrics", "priors", "models", "transform", "coding"}
    pure |= {"placeholders"}
    pure |= {"pipeline.encoding", "pipeline.rate_control"}
    for name, tree in MODULES.items():
        if below(name, pure):
            assert not {head(target) for target in imported(name, tree)} & {"pathlib", "os", "tempfile"}, name
            calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
            assert "open" not in calls, name


def test_the_public_face_is_complete() -> None:
    assert vqcodec.__all__ == sorted(vqcodec.__all__)
    assert set(vqcodec.__all__) == set(vqcodec._HOMES)
    for name in vqcodec.__all__:
        module, attribute = vqcodec._HOMES[name]
        home = importlib.import_module(f"vqcodec.{module}")
        assert getattr(vqcodec, name) is getattr(home, attribute)
        assert getattr(vqcodec, name).__doc__, name
    assert set(vqcodec.__all__) <= set(dir(vqcodec))
    # An imported module of the same name would take the place of the function.
    assert not {head(name) for name in MODULES} & {name for name in vqcodec.__all__ if name.islower()}
    with pytest.raises(AttributeError, match="no attribute 'compress'"):
        _ = vqcodec.compress
    # What type checkers are told is what is loaded.
    for node in ast.walk(MODULES["vqcodec"]):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            for alias in node.names:
                assert vqcodec._HOMES[alias.asname or alias.name] == (node.module, alias.name)


def run(code: str) -> str:
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    return result.stdout


def test_import_is_instant() -> None:
    heavy = "{'torch', 'numpy', 'PIL', 'safetensors', 'constriction', 'typer', 'rich'}"
    assert run(f"import sys, vqcodec\nprint(sorted({heavy} & set(sys.modules)))") == "[]\n"
    # Cards are read without any network.
    assert run("import sys, vqcodec\nvqcodec.shipped()\nprint('torch' in sys.modules)") == "False\n"


def test_modules_are_of_a_readable_length() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert not long


def test_every_error_says_what_to_do() -> None:
    """Errors have a hint, those of their class if no other."""
    silent = [
        f"{name}:{node.lineno}"
        for name, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if isinstance(kind := getattr(errors, node.func.id, None), type)
        if issubclass(kind, errors.VqcodecError) and not kind.remedy
        if len(node.args) < 2 and not any(isinstance(argument, ast.Starred) for argument in node.args)
    ]
    assert not silent
    assert errors.DamagedError("damaged header").hint == errors.DamagedError.remedy
    assert errors.DamagedError("damaged", "another").hint == "another"
