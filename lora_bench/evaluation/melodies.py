"""What a trial's clips have to do with the melodies that they follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lora_bench.audio.melodies import hash_melodies
from lora_bench.errors import UnscoredError
from lora_bench.metrics.names import MELODY_AGREEMENT
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.store import hash_json

if TYPE_CHECKING:
    from lora_bench.encoders.melody_agreement import MelodyAgreement


def describe_melodies(trial: TrialPlan) -> dict[str, str | int | float]:
    """Return the provenance of the melodies: their number, and a hash of their contents; empty without melodies."""
    if trial.generation.melodies is None:
        return {}
    hashes = hash_melodies(trial.generation.melodies)
    return {"n_melodies": len(hashes), "melodies_hash": hash_json(hashes)}


def open_agreement(trial: TrialPlan) -> MelodyAgreement:
    """Return the encoder of a trial's melodies.

    Raises:
        UnscoredError: the clips follow none.
        DatasetError: the melodies are gone.
    """
    if trial.external is not None:
        raise UnscoredError(f"{MELODY_AGREEMENT}: the clips of another system follow no melodies")
    if trial.generation.melodies is None:
        raise UnscoredError(
            f"{MELODY_AGREEMENT}: the clips follow no melodies; set generation.melodies to a folder of them"
        )
    from lora_bench.encoders.melody_agreement import MelodyAgreement

    return MelodyAgreement(trial.generation.melodies)
