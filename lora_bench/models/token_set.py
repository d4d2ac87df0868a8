"""Codes and text states of a dataset, the model's input in training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from lora_bench.artifacts import Split
from lora_bench.errors import StoreError
from lora_bench.models.records import TextState
from lora_bench.store import read_json, write_text

if TYPE_CHECKING:
    from numpy.typing import NDArray

ARRAYS_FILE = "tokens.safetensors"
FACTS_FILE = "tokens.json"


@dataclass(frozen=True)
class TokenSet:
    """Codes and text states of a dataset's slices, `n` of them in the manifest's order.

    Attributes:
        key: hash of their sources.
        codes: int16 [n, K, F], not delayed.
        valid_frames: int64 [n]; later frames of a slice are padding.
        splits: n times `train`, `selection` or `eval`.
        track_ids: n ids.
        caption_index: int64 [n], into `captions` and `text_states`.
        captions: distinct captions.
        text_states: float32 [L, D] for each of them.
        slice_s: length of a slice in seconds, padding included.
        choices: by track, the captions that training chooses from; tracks with one caption are not in it.
    """

    key: str
    codes: NDArray[np.int16]
    valid_frames: NDArray[np.int64]
    splits: tuple[Split, ...]
    track_ids: tuple[str, ...]
    caption_index: NDArray[np.int64]
    captions: tuple[str, ...]
    text_states: tuple[NDArray[np.float32], ...]
    slice_s: float
    choices: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])

    def __len__(self) -> int:
        return len(self.codes)

    def find_split(self, split: Split) -> NDArray[np.int64]:
        """Return the indices of a split's slices."""
        return np.flatnonzero(np.array(self.splits) == split)

    def take(
        self, rows: Sequence[int] | NDArray[np.int64], draws: NDArray[np.float64] | None = None
    ) -> tuple[Tensor, Tensor, list[TextState]]:
        """Return codes int64 [B, K, F], valid frames int64 [B] and text states of some slices.

        Args:
            rows: indices of the slices.
            draws: [B] numbers from 0 to 1 that choose one of a track's captions; None takes the main one.
        """
        index = np.asarray(rows)
        chosen = self.caption_index[index] if draws is None else self._choose(index, draws)
        states = [torch.from_numpy(self.text_states[i]) for i in chosen]
        codes = torch.from_numpy(self.codes[index].astype(np.int64))
        return codes, torch.from_numpy(self.valid_frames[index]), states

    def _choose(self, rows: NDArray[np.int64], draws: NDArray[np.float64]) -> list[int]:
        chosen: list[int] = []
        for row, draw in zip(rows.tolist(), draws.tolist(), strict=True):
            choices = self.choices.get(self.track_ids[row], (int(self.caption_index[row]),))
            chosen.append(choices[int(draw * len(choices))])
        return chosen


def save_tokens(tokens: TokenSet, folder: Path) -> None:
    """Write a token set into an existing folder."""
    arrays = {
        "codes": tokens.codes,
        "valid_frames": tokens.valid_frames,
        "caption_index": tokens.caption_index,
    }
    texts = {f"text_{i}": np.ascontiguousarray(state) for i, state in enumerate(tokens.text_states)}
    save_file({**arrays, **texts}, folder / ARRAYS_FILE)
    facts = {
        "key": tokens.key,
        "splits": tokens.splits,
        "track_ids": tokens.track_ids,
        "captions": tokens.captions,
        "slice_s": tokens.slice_s,
        **({"choices": tokens.choices} if tokens.choices else {}),
    }
    write_text(folder / FACTS_FILE, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


def load_tokens(folder: Path) -> TokenSet:
    """Read a token set.

    Raises:
        StoreError: a file is missing or damaged.
    """
    facts = read_json(folder / FACTS_FILE)
    try:
        arrays = load_file(folder / ARRAYS_FILE)
        return TokenSet(
            key=facts["key"],
            codes=cast("NDArray[np.int16]", arrays["codes"]),
            valid_frames=cast("NDArray[np.int64]", arrays["valid_frames"]),
            splits=tuple(facts["splits"]),
            track_ids=tuple(facts["track_ids"]),
            caption_index=cast("NDArray[np.int64]", arrays["caption_index"]),
            captions=tuple(facts["captions"]),
            text_states=tuple(
                cast("NDArray[np.float32]", arrays[f"text_{i}"]) for i in range(len(facts["captions"]))
            ),
            slice_s=facts["slice_s"],
            choices={track_id: tuple(places) for track_id, places in facts.get("choices", {}).items()},
        )
    except (OSError, KeyError, SafetensorError) as error:
        raise StoreError(f"{folder}: damaged tokens ({error!r}); remove the folder and run again") from error
