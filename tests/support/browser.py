"""A headless browser, driven by its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).

A page is looked at as it is, with its content security policy.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any, Literal

NAMES = ("chromium", "chromium-browser", "google-chrome")
AXE_FOLDER = Path(__file__).parents[2] / ".axe"
KEYS = {"Enter": ("\r", 13), " ": (" ", 32), "Tab": ("", 9), "Escape": ("", 27)} | {
    f"Arrow{side}": ("", 37 + number) for number, side in enumerate(("Left", "Up", "Right", "Down"))
}
"""Text and virtual key code of keys that are more than a letter."""


class BrowserMissingError(RuntimeError):
    """The tests in a browser need a program that is not there; the message says how to get it."""


def find_browser() -> str:
    """The path of Chromium.

    Raises:
        BrowserMissingError: none is on the PATH.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise BrowserMissingError(f"none of {', '.join(NAMES)} is on the PATH; install Chromium")
    return found


def read_axe() -> str:
    """The source of axe-core.

    Raises:
        BrowserMissingError: it was not fetched.
    """
    found = sorted(AXE_FOLDER.glob("axe-*.min.js"))
    if not found:
        raise BrowserMissingError(f"{AXE_FOLDER}: has no axe-core; fetch it with tools/get_axe.sh")
    return found[-1].read_text(encoding="utf-8")


class Page:
    """A page of a headless browser, spoken to through the pipe that `--remote-debugging-pipe` opens."""

    def __init__(self, profile: Path) -> None:
        browser = find_browser()
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()

        def place_pipes() -> (
            None
        ):  # the browser reads 3 and writes 4; the pipes' own numbers may be among them
            ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]
            for number, end in zip((3, 4), ends, strict=True):
                os.dup2(end, number)

        self._browser = subprocess.Popen(
            [
                browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
                f"--user-data-dir={profile}", "about:blank",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=place_pipes,  # noqa: PLW1509 (no threads here)
        )  # fmt: skip
        os.close(to_browser)
        os.close(from_browser)
        self._number = 0
        self._rest = b""
        self._session: dict[str, str] = {}
        self.heard: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._session = {"sessionId": session}
        for domain in ("Network", "Log", "Runtime", "Page"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **options: Any) -> dict[str, Any]:
        """The result of a command; what the page tells meanwhile is kept."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": options, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "result" in answer, f"{method}: {answer['error']['message']}"
                return answer["result"]
            self._listen(answer)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._in, 1 << 20)
            assert part, "the browser is gone"
            self._rest += part
        first, self._rest = self._rest.split(b"\0", 1)
        return json.loads(first)

    def _listen(self, message: dict[str, Any]) -> None:
        """Keep requests and complaints."""
        parts = message.get("params") or {}
        if message.get("method") == "Network.requestWillBeSent":
            self.heard.append(parts["request"]["url"][:200])
        elif message.get("method") in (
            "Log.entryAdded",
            "Runtime.exceptionThrown",
            "Runtime.consoleAPICalled",
        ):
            self.heard.append(json.dumps(parts)[:500])

    def evaluate(self, expression: str) -> Any:
        """Value of an expression in the page; promises are waited for."""
        found = self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True, userGesture=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key: str) -> None:
        """Press and release a key where the focus is."""
        text, code = KEYS.get(key, (key, ord(key.upper()[0])))
        about = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def wait(self, condition: str, timeout_s: float = 30.0) -> None:
        """Wait until an expression is true."""
        end_s = time.monotonic() + timeout_s
        while not self.evaluate(condition):
            assert time.monotonic() < end_s, f"not true after {timeout_s} s: {condition}"
            time.sleep(0.03)

    def choose_colours(self, scheme: Literal["light", "dark"]) -> None:
        """Load later pages as a reader sees them who prefers light or dark colours."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def capture(self) -> bytes:
        """A picture of what is on the screen, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot")["data"])

    def open(self, page: Path, width: int, height: int = 900) -> None:
        """Load a page at a width and a height, and wait until all of it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        self.call("Page.navigate", url=page.as_uri())
        while self.evaluate("document.readyState + location.href") != f"complete{page.as_uri()}":
            time.sleep(0.1)

    def close(self) -> None:
        """End the browser."""
        self._browser.terminate()
        self._browser.wait(timeout=60)
        os.close(self._out)
        os.close(self._in)
