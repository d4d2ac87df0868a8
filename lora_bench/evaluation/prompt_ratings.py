"""Encoders of ratings that compare a trial's clips with what they were asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lora_bench.evaluation.melodies import open_agreement
from lora_bench.metrics.names import MELODY_AGREEMENT
from lora_bench.metrics.prompt_tags import find_tags
from lora_bench.planning.trial_plan import TrialPlan

if TYPE_CHECKING:
    from lora_bench.artifacts import Embeddings
    from lora_bench.encoders import Encoder


def open_raters(name: str, trial: TrialPlan) -> tuple[Mapping[str, Encoder], Embeddings]:
    """Return the encoders of the prompts that can be rated, and the best ratings, which comparisons need equal.

    Args:
        name: one of `PROMPT_RATINGS`.
        trial: whose clips are rated.

    Raises:
        UnscoredError: the clips follow no melodies, or the tagger's weights are unavailable.
        DatasetError: the melodies are gone.
    """
    if name == MELODY_AGREEMENT:
        agreement = open_agreement(trial)
        return dict.fromkeys(trial.prompts, agreement), agreement.embed_melodies()
    from lora_bench.encoders.tag_adherence import TagAdherence, embed_tags, open_tagger

    tagger = open_tagger()
    raters = {prompt: TagAdherence(prompt, tagger) for prompt in trial.prompts if find_tags(prompt)}
    return raters, embed_tags(tagger)
