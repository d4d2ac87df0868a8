"""What is left to do of a trial, by its files: finished training and clips are not charged again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from lora_bench.planning.run_folder import TrialFolder
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.slugs import prompt_slugs

MAX_HEADER_BYTES = 100_000_000  # of a safetensors file


@dataclass(frozen=True)
class Remaining:
    """Shares of a trial's training steps and of its clips that are still to be done."""

    train_frac: float = 1.0
    generate_frac: float = 1.0


ALL = Remaining()


def find_remaining(trial: TrialPlan, folder: Path) -> Remaining:
    """What a run still does of a trial in `folder`, if its recordings have not changed."""
    if not folder.is_dir():
        return ALL
    files = TrialFolder(folder)
    n_there = 0
    for slug in prompt_slugs(trial.prompts).values():
        n_there += min(len(list((files.clips / slug).glob("*.wav"))), trial.generation.n_clips)
    n_clips = trial.generation.n_clips * len(trial.prompts)
    train_frac = 0.0
    if trial.train is not None and not files.is_trained:
        train_frac = 1.0 - min(read_step(files.checkpoint_state) / trial.train.steps, 1.0)
    return Remaining(train_frac, 1.0 - n_there / n_clips if n_clips else 0.0)


def read_step(checkpoint: Path) -> int:
    """Steps that a checkpoint holds, from the header of its file (without torch); 0 if there is none."""
    try:
        with checkpoint.open("rb") as stream:
            n_bytes = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(n_bytes, MAX_HEADER_BYTES)))
        return int(json.loads(header["__metadata__"]["state"])["step"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0
