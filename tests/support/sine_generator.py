"""A generator of another system, as a user might write it: sines, and every fault that tests ask for."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile


def main() -> None:
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    request = json.loads(text)
    settings = request["settings"]
    if "requests" in settings:
        with Path(settings["requests"]).open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(request) + "\n")
    rate_hz, n_done = settings.get("rate_hz", 8000), 0
    for prompt in request["prompts"]:
        for clip in prompt["clips"]:
            is_mended = "mended" in settings and Path(settings["mended"]).exists()
            if n_done == settings.get("crash_after") and not is_mended:
                raise RuntimeError("out of sines")
            if n_done == settings.get("hang_after"):
                hang(settings["pids"])
            write(clip, request["clip_s"], rate_hz, settings)
            n_done += 1


def write(clip: dict, clip_s: float, rate_hz: int, settings: dict) -> None:
    def asks(fault: str) -> bool:
        return clip["index"] in settings.get(fault, ())

    if asks("skip"):
        return
    if asks("text"):
        Path(clip["file"]).write_text("no sound", encoding="utf-8")
        return
    times_s = np.arange(round(clip_s * rate_hz * (0.5 if asks("short") else 1.0))) / rate_hz
    hz = np.random.default_rng(clip["seed"]).uniform(100, 900)
    audio = 0.3 * np.sin(2 * np.pi * hz * times_s) * (0.0 if asks("silent") else 1.0)
    if asks("nan"):
        audio[0] = np.nan
    channels = settings.get("channels", 1)
    soundfile.write(clip["file"], np.repeat(audio[:, None], channels, axis=1), rate_hz, subtype="FLOAT")


def hang(pids: str) -> None:
    child = subprocess.Popen(["sleep", "600"])
    Path(pids).write_text(f"{os.getpid()} {child.pid}", encoding="utf-8")
    time.sleep(600)


if __name__ == "__main__":
    main()
