"""`command.NAME`: an encoder in another environment, called as a command.

The command gets the name of a JSON file as its last argument and writes an `.npz` file:

    {"clips": ["/tmp/.../0.wav", ...], "sample_rate_hz": 24000, "output": "/tmp/.../vectors.npz"}

`output` holds one array per clip, `0`, `1` and so on, of shape [D] or [M, D].
"""

from __future__ import annotations

import json
import shlex
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.audio import save_wav
from lora_bench.errors import UnscoredError
from lora_bench.machine.programs import ProgramError, call_program
from lora_bench.spec.commands import CommandSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CommandPlugin:
    """Vectors from a command; see the module."""

    Settings = CommandSpec
    batch_s = 3600.0
    """Many clips in one call: a command loads its model every time."""

    def __init__(self, settings: CommandSpec, _device: str) -> None:
        self.settings = settings
        self.sample_rate_hz, self.dim = settings.sample_rate_hz, settings.dim
        self.provenance = {"weights": "of the command"}

    def embed(self, audio: NDArray[np.float32]) -> NDArray[np.float32]:
        """Call the command with clips [B, S]; returns [B, M, D]."""
        with tempfile.TemporaryDirectory(prefix="lora-bench-") as place:
            folder = Path(place)
            clips = [folder / f"{index}.wav" for index in range(len(audio))]
            for clip, samples in zip(clips, audio, strict=True):
                save_wav(clip, samples[None], self.sample_rate_hz)
            output, request = folder / "vectors.npz", folder / "request.json"
            task = {
                "clips": [str(clip) for clip in clips],
                "sample_rate_hz": self.sample_rate_hz,
                "output": str(output),
            }
            request.write_text(json.dumps(task), encoding="utf-8")
            try:
                call_program(
                    [*shlex.split(self.settings.run), str(request)],
                    (folder / "stdout.txt", folder / "stderr.txt"),
                    timeout_s=self.settings.timeout_s,
                )
            except ProgramError as error:
                raise UnscoredError(f"`{self.settings.run}` {error}") from error
            if not output.is_file():
                raise UnscoredError(f"`{self.settings.run}` ended without writing `output`")
            with np.load(output, allow_pickle=False) as found:
                absent = [str(index) for index in range(len(clips)) if str(index) not in found]
                if absent:
                    raise UnscoredError(
                        f"`{self.settings.run}` wrote no array `{absent[0]}`; expected one per clip"
                    )
                rows = [np.atleast_2d(found[str(index)]) for index in range(len(clips))]
        if len({item.shape for item in rows}) > 1:
            shapes = sorted({str(item.shape) for item in rows})
            raise UnscoredError(
                f"clips of one length have vectors of shapes {', '.join(shapes)}; expected one shape"
            )
        return np.stack(rows).astype(np.float32)
