"""A headless browser, driven by its DevTools protocol (https://chromedevtools.github.io/devtools-protocol/).

A page is looked at as it is, with its content security policy.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page:
    """A page of a headless browser, spoken to through the pipe that `--remote-debugging-pipe` opens."""

    def __init__(self, profile: Path) -> None:
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
                str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
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
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True)
        return found["result"].get("value")

    def open(self, page: Path, width: int) -> None:
        """Load a page at a width and wait until all of it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
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
