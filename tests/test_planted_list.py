"""The list of `benchmarks/planted.py`: each fault has a line to be planted in."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_fault_has_its_line_and_its_tests() -> None:
    spec = importlib.util.spec_from_file_location("planted", ROOT / "benchmarks" / "planted.py")
    assert spec is not None and spec.loader is not None
    planted = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(planted)
    for fault in planted.FAULTS:
        text = (ROOT / "codec" / fault.module).read_text()
        assert fault.line in text and fault.line != fault.fault, f"{fault.module}: {fault.line}"
        for name in fault.tests.split():
            name = name.partition("::")[0]
            assert (ROOT / "tests" / f"{name}.py").exists() or (ROOT / "tests" / name).exists(), name
