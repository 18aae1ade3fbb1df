"""What is installed is what is in the folders; what it needs is bounded; its README has no dead links."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import ModuleType

import pytest
from vqcodec.cli import listing, names

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


@pytest.fixture(scope="module")
def setup_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("setup_script", ROOT / "setup.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_package_is_in_the_wheel() -> None:
    folders = {"codec": "vqcodec", "cli": "vqcodec.cli", "pretrained": "vqcodec.pretrained"}
    found = set()
    for folder, name in folders.items():
        for path in (ROOT / folder).rglob("__init__.py"):
            found.add(".".join([name, *path.parent.relative_to(ROOT / folder).parts]))
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == found


def test_every_dependency_has_both_bounds() -> None:
    project = SETTINGS["project"]
    needed = [*SETTINGS["build-system"]["requires"], *project["dependencies"]]
    for extra in project["optional-dependencies"].values():
        needed += extra
    assert len(needed) > 25
    assert [text for text in needed if not re.fullmatch(r"[\w.\[\]-]+>=[\d.]+,<[\d.]+", text)] == []


def test_pythons_are_declared_as_they_were_tried() -> None:
    declared = [c.rpartition(" ")[2] for c in SETTINGS["project"]["classifiers"] if ":: 3." in c]
    assert declared == ["3.11"]


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://host.example/a/b.git\n", "https://host.example/a/b"),
        ("https://user:secret@host.example:8443/a/b", "https://host.example:8443/a/b"),
        ("git@host.example:a/b.git", "https://host.example/a/b"),
        ("ssh://git@host.example/a/b.git", "https://host.example/a/b"),
        ("/srv/git/b.git", ""),
        ("", ""),
    ],
)
def test_the_address_of_a_remote(setup_script: ModuleType, remote: str, address: str) -> None:
    assert setup_script.web_address(remote) == address


def test_an_address_is_that_of_the_checkout_or_of_the_sdist(setup_script: ModuleType, tmp_path: Path) -> None:
    assert setup_script.address(tmp_path) == ""
    for words in (["init", "-q"], ["remote", "add", "origin", "git@host.example:b.git"]):
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    assert setup_script.address(tmp_path) == "https://host.example/b"
    (tmp_path / "PKG-INFO").write_text("Name: x\nProject-URL: Source, https://host.example/a\n")
    assert setup_script.address(tmp_path) == "https://host.example/a"


def test_links_of_the_readme_work_elsewhere(setup_script: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text()
    page = setup_script.absolute(readme, "https://host.example/a")
    targets = re.findall(r"(!?)\[[^]]*\]\(([^)]*)\)", page)
    assert len(targets) > 10
    for picture, target in targets:
        assert target.startswith(("https://", "#")), target
        if target.startswith(base := f"https://host.example/a/{'raw' if picture else 'blob'}/HEAD/"):
            assert (ROOT / target.removeprefix(base).partition("#")[0]).exists(), target
    assert "](docs/" not in page and setup_script.absolute(readme, "") == readme


def test_the_commands_start_where_posix_modules_are_missing(tmp_path: Path) -> None:
    """As on Windows."""
    code = (
        "import sys\nfor name in ('fcntl', 'resource', 'pwd', 'grp', 'termios'): sys.modules[name] = None\n"
        "import vqcodec.files, vqcodec.media, vqcodec.bitstream.container, vqcodec.weights\n"
        "import vqcodec.training.memory as memory, pathlib\n"
        "assert memory.peak_bytes('cpu') is None\n"
        "with vqcodec.files.atomically(pathlib.Path('x')) as file: file.write(b'whole')\n"
        "assert pathlib.Path('x').read_bytes() == b'whole'\n"
        "from vqcodec.cli import main\nsys.argv = ['vqcodec', '--version']\nmain.run()\n"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, ""), result.stderr


def test_completion_can_be_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['vqcodec', *sys.argv[1:]]; from vqcodec.cli.main import run; run()"

    def run(*arguments: str, **environment: str) -> str:
        words = [sys.executable, "-c", code, *arguments]
        given = {"HOME": str(tmp_path), "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1", **environment}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout

    completed = {"_VQCODEC_COMPLETE": "complete_bash", "COMP_WORDS": "vqcodec enc", "COMP_CWORD": "1"}
    assert run(**completed).split() == ["encode"]
    monkeypatch.delenv("_VQCODEC_COMPLETE")
    assert "_VQCODEC_COMPLETE" in run("--show-completion", "bash")
    run("--install-completion", "bash")
    assert "vqcodec" in (tmp_path / ".bashrc").read_text()


def test_names_follow_the_rules_of_their_system() -> None:
    windows = PureWindowsPath(r"C:\in\Shot 12.30.PNG")
    assert names.stem_of(windows, {".png"}) == PureWindowsPath(r"C:\in\Shot 12.30")
    assert names.append(windows, ".vqc") == PureWindowsPath(r"C:\in\Shot 12.30.PNG.vqc")
    for flavour, path, below in (
        (PurePosixPath, "/a/b", "a/b"),
        (PurePosixPath, "a/b", "a/b"),
        (PureWindowsPath, r"C:\a\b", r"a\b"),
        (PureWindowsPath, "C:b", "b"),
        (PureWindowsPath, r"\\host\share\a", "a"),
        (PureWindowsPath, r"\a", "a"),
    ):
        assert listing.without_root(flavour(path)) == flavour(below)
