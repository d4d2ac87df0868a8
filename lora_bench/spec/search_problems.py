"""Whether a search can be what the spec asks for: fewer trials than candidates, one number to judge them by."""

from __future__ import annotations

from collections.abc import Sequence

from lora_bench.errors import Problem
from lora_bench.metrics.names import MELODY_AGREEMENT, TAG_ADHERENCE
from lora_bench.metrics.prompt_tags import find_tags
from lora_bench.spec.configuration import Configuration
from lora_bench.spec.configurations import find_differences
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.spec.search import HELD_OUT_LOSS
from lora_bench.spec.words import suggest

_COUNT = "search.optuna.n_trials"
_OBJECTIVE = "search.optuna.objective"
# The objective of trials that differ in these says how hard the data are, not which setting is better.
_SHARED = ("model", "dataset")
_SHARED_CLIPS = frozenset({"clip_s", "n_clips"})


def find_search_problems(spec: ExperimentSpec, configurations: Sequence[Configuration]) -> list[Problem]:
    """What is wrong with `search.optuna`, given everything that the spec names; nothing without a search."""
    optuna = spec.search.optuna
    if optuna is None:
        return []
    known = [HELD_OUT_LOSS, *spec.metrics]
    if optuna.objective not in known:
        return [
            Problem(
                spec.name,
                _OBJECTIVE,
                f"`{_OBJECTIVE}` is `{optuna.objective}`; expected {HELD_OUT_LOSS} or one of metrics "
                f"({', '.join(spec.metrics)}){suggest(optuna.objective, known)}",
            )
        ]
    candidates = [item for item in configurations if item.cells]
    wanted = [item for item in candidates if item.is_wanted]
    if optuna.n_trials >= len(candidates):
        return [
            Problem(
                spec.name,
                _COUNT,
                f"`{_COUNT}` is {optuna.n_trials}, and trials has {len(candidates)} to choose among; give fewer, or "
                "drop search.optuna to train all of them",
            )
        ]
    if optuna.n_trials < len(wanted):
        names = ", ".join(item.name for item in wanted)
        return [
            Problem(
                spec.name,
                _COUNT,
                f"`{_COUNT}` is {optuna.n_trials}, but {len(wanted)} of its candidates are also named elsewhere "
                f"and run in any case ({names}); raise it",
            )
        ]
    lack = _find_lack(spec, optuna.objective, candidates)
    return [Problem(spec.name, _OBJECTIVE, lack)] if lack else _find_incomparable(spec, candidates)


def _find_lack(spec: ExperimentSpec, objective: str, candidates: Sequence[Configuration]) -> str | None:
    """Return why no candidate would have a value of the objective, or values of different melodies."""
    if objective == TAG_ADHERENCE and not any(map(find_tags, spec.prompts)):
        return f"`{_OBJECTIVE}` is `{objective}`, and no prompt names a tag of the tagger; choose another"
    melodies = {item.settings.generation.melodies for item in candidates}
    if objective == MELODY_AGREEMENT and (None in melodies or len(melodies) > 1):
        return (
            f"`{_OBJECTIVE}` is `{objective}`, which compares trials whose clips follow the same melodies; set "
            "generation.melodies to one folder, or choose another"
        )
    return None


def _find_incomparable(spec: ExperimentSpec, candidates: Sequence[Configuration]) -> list[Problem]:
    by_loss = spec.search.optuna is not None and spec.search.optuna.objective == HELD_OUT_LOSS
    first = candidates[0].identity
    fields = dict.fromkeys(
        field
        for name in (*_SHARED, "generation")
        for item in candidates[1:]
        if item.identity[name] is not first[name]
        for field in find_differences({name: first[name]}, {name: item.identity[name]})
    )
    sampling = [field for field in fields if field.startswith("generation.")]
    unfit = [field for field in fields if field not in sampling or field.partition(".")[2] in _SHARED_CLIPS]
    if unfit:
        message = (
            f"`search.optuna` compares trials by one number, but they differ in {', '.join(unfit)}, which changes "
            "what the number means; use a separate experiment for each"
        )
        return [Problem(spec.name, _OBJECTIVE, message)]
    if sampling and by_loss:
        message = (
            f"`{_OBJECTIVE}` is {HELD_OUT_LOSS}, which does not depend on {', '.join(sampling)}; choose one of the "
            "metrics, or remove them from the axes"
        )
        return [Problem(spec.name, _OBJECTIVE, message)]
    return []
