"""States of the melodies that the clips of a batch follow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lora_bench.models.base import MusicModel
from lora_bench.models.melodies import Melodies


class ReadMelodies:
    """Melodies as states of a model's decoder.

    Args:
        model: a melody model.
        path: of the melodies, see `lora_bench.audio.melodies`.

    Raises:
        DatasetError: nothing is there, or the folder holds no audio.
    """

    def __init__(self, model: MusicModel, path: Path) -> None:
        self._model = model
        self._melodies = Melodies(path)

    @torch.inference_mode()
    def find(self, clips: Sequence[int], begin: int | None) -> list[Tensor]:
        """Return the states [P, D] for a window of each clip; clips of one melody share one tensor.

        Args:
            clips: indices.
            begin: frame at which the window begins; None for the only window of the clips.

        Raises:
            AudioFileError: a file cannot be read; names it.
            ModelError: the model follows no melody.
        """
        begin_s = None if begin is None else begin / self._model.info.frame_rate_hz
        places = [self._melodies.place(clip) for clip in clips]
        states = {
            place: self._model.encode_melody(self._melodies.read(place, begin_s)) for place in set(places)
        }
        return [states[place] for place in places]
