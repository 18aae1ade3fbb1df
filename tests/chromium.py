"""A headless Chromium that tests steer over a pipe, by the DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next((path for name in BROWSERS if (path := shutil.which(name))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run")
needs_chromium = pytest.mark.skipif(BROWSER is None, reason="no Chromium")


class Chromium:
    """One page of a browser, and everything that went wrong on it.

    Attributes:
        errors: exceptions, and messages of the console that are errors or warnings.
        requests: addresses that the page asked for, but for data in itself.
    """

    def __init__(self, profile: Path) -> None:
        assert BROWSER is not None
        self.errors: list[str] = []
        self.requests: list[str] = []
        command = [BROWSER, *FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        (ours_in, self._out), (self._in, ours_out) = os.pipe(), os.pipe()

        def take_over() -> None:
            # It reads at 3 and writes at 4; copies first, since the ends may have these numbers themselves.
            ends = os.dup(ours_in), os.dup(ours_out)
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        self._process = subprocess.Popen(
            [*command, "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(3, 4),
            preexec_fn=take_over,  # noqa: PLW1509
        )
        os.close(ours_in)
        os.close(ours_out)
        self._reader = os.fdopen(self._in, "rb")
        self._timer = threading.Timer(90, self._process.kill)
        self._timer.start()
        self._number, self._session, self._rest = 0, "", b""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._process.kill()
        self._process.wait()
        self._reader.close()
        os.close(self._out)

    def open(self, path: Path, *, width: int = 1280, dark: bool = False) -> None:
        """Open a file, and wait until it is loaded."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._call("Emulation.setEmulatedMedia", features=[scheme])
        self._call("Page.navigate", url=path.as_uri())
        while self._next().get("method") != "Page.loadEventFired":
            pass

    def run(self, script: str) -> Any:
        """Return the value of an expression, which may be a promise."""
        found = self._call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def drag(self, *places: tuple[float, float]) -> None:
        """Press at the first place, move to each other, and release at the last."""
        for kind, (x, y) in [("mousePressed", places[0]), *(("mouseMoved", p) for p in places[1:])]:
            self._call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1
            )
        x, y = places[-1]
        self._call("Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write a PNG of what is visible, or of the whole page."""
        data = self._call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))

    def _call(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._number:
            pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _next(self) -> dict[str, Any]:
        """Return the next message, and note what went wrong."""
        while b"\0" not in self._rest:
            piece = self._reader.read1(1 << 16)
            assert piece, "the browser ended"
            self._rest += piece
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        params = message.get("params", {})
        match message.get("method"):
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.errors.append(str(params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.errors.append(params["entry"]["text"])
            case "Network.requestWillBeSent" if not params["request"]["url"].startswith("data:"):
                self.requests.append(params["request"]["url"])
        return message
