"""From an experiment to its trials: names, seeds, identities.  Nothing here looks at data or models.

The order is zero-shot models, variants, grid, ablations; within each, training seeds as stated.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lora_bench.errors import Problem, SpecError
from lora_bench.planning.notes import (
    describe_merged,
    describe_undecidable,
    describe_unscored,
    describe_unsized,
    describe_untrained,
)
from lora_bench.planning.trainings import find_shared
from lora_bench.planning.trial_plan import ExperimentPlan, SearchPlace, TrialPlan, TuningPlace
from lora_bench.slugs import clean_name, slugify
from lora_bench.spec.budgets import spell_count
from lora_bench.spec.configuration import (
    EFFECT_FREE,
    Configuration,
    FitBudget,
    PlainSection,
    SectionTexts,
    write_canonical,
)
from lora_bench.spec.configurations import (
    ZERO_SHOT,
    drop_effect_free,
    expand_configurations,
    find_differences,
)
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.spec.grid import find_value, label_field, show_value
from lora_bench.spec.kinds import has_setting
from lora_bench.spec.loading import LoadedSpec
from lora_bench.spec.schema import LoraSpec, ModelSpec
from lora_bench.spec.search_problems import find_search_problems
from lora_bench.spec.tune import TuneSpec
from lora_bench.spec.tuned_configurations import Attempt, freeze_values, list_attempts
from lora_bench.store import to_jsonable

# Raised when the same settings give other clips, or when what is hashed changes.
ID_VERSION = 2
MANY_TRIALS = 64
MAX_SLUG = 60
_STRENGTH = "adapter_scale"
_UNTUNED_WITHOUT = frozenset({"lora", "train", "external"})
Chosen = Mapping[str, Mapping[str, Any]]
"""Values by dotted field, by configuration."""


def plan_file(loaded: LoadedSpec, fit_budget: FitBudget | None = None) -> ExperimentPlan:
    """`plan_experiment` of a loaded spec; problems carry their places.

    Raises:
        SpecError: names collide, the baseline does not exist, a combination is not valid.
    """
    try:
        plan = plan_experiment(loaded.spec, fit_budget)
    except SpecError as error:
        placed = [Problem(loaded.locate(item.field), item.field, item.message) for item in error.problems]
        raise SpecError(placed) from None
    here = Path.cwd()  # reports name the spec as its user does, not by where this machine keeps it
    file = loaded.file.relative_to(here) if loaded.file.is_relative_to(here) else loaded.file
    is_shipped = loaded.files[-1] != loaded.file
    notes = (f"{file}: the spec that is shipped with lora_bench", *plan.notes) if is_shipped else plan.notes
    stated = {"overrides": loaded.overrides, "override_effects": loaded.effects, "notes": notes}
    return plan.model_copy(update={"source": file.as_posix(), **stated})


def plan_experiment(
    spec: ExperimentSpec, fit_budget: FitBudget | None = None, chosen: Chosen | None = None
) -> ExperimentPlan:
    """Expand an experiment into trials, and decide what each is compared with.

    Configurations that train the same adapter and make the same clips are one trial; the zero-shot model of every
    model, dataset and sampling that occurs comes first.

    Args:
        spec: the experiment.
        fit_budget: finds the sizes of adapters with `lora.budget` (`forecast.budgets`), where the spec has any.
        chosen: with `tune`, the values that were chosen by configuration; those without are left out.  None plans the
            attempts.

    Raises:
        SpecError: names collide, the baseline does not exist, a combination is not valid.
    """
    fit_budget = fit_budget or _refuse_budget
    configurations, problems = expand_configurations(spec, fit_budget)
    problems = problems or find_search_problems(spec, configurations)
    attempts: list[Attempt] = []
    if spec.tune is not None and not problems:
        attempts, problems = list_attempts(spec, spec.tune, configurations, fit_budget)
    if problems:
        raise SpecError(list(dict.fromkeys(problems)))
    if spec.tune is not None and chosen is None:
        return _plan_attempts(spec, spec.tune, configurations, attempts)
    if spec.tune is not None and chosen is not None:
        configurations = freeze_values(spec, configurations, chosen, fit_budget)
    baseline = next(
        (item.name for item in configurations if spec.baseline in (item.name, *item.aliases)), None
    )
    texts = SectionTexts(EFFECT_FREE)
    zero_shot = _plan_zero_shot(spec, configurations, texts)
    planned = [
        (item, trial.train_seed, trial)
        for item in ([] if spec.trials.zero_shot_only else configurations)
        for trial in _plan_repeats(spec, item, texts)
    ]
    shared = find_shared((item, seed, trial.id) for item, seed, trial in planned if seed is not None)
    # a training that some trial needs to its end is not given up by another that shares it
    unstopped = {
        shared[trial.id].leader
        for _, _, trial in planned
        if trial.id in shared and trial.early_stopping is None
    }
    compared: list[TrialPlan] = []
    for item, _, trial in planned:
        update: dict[str, object] = {"zero_shot": zero_shot[_base_of(item, texts)].id}
        if trial.id in shared:
            update |= {"training": shared[trial.id].leader, "kept": shared[trial.id].kept}
            if shared[trial.id].leader in unstopped:
                update["early_stopping"] = None
        compared.append(trial.model_copy(update=update))
    return ExperimentPlan(
        name=spec.name,
        spec=spec,
        trials=(*zero_shot.values(), *_pair_with_baseline(compared, baseline)),
        baseline=baseline,
        notes=(
            *(
                describe_merged(item)
                for item in configurations
                if (item.aliases or item.merged_fields) and not spec.trials.zero_shot_only
            ),
            *describe_unsized([] if spec.trials.zero_shot_only else configurations),
            *describe_untrained(configurations if spec.trials.zero_shot_only else []),
            *describe_undecidable(spec, configurations),
            *describe_unscored(spec, configurations),
        ),
    )


def _plan_attempts(
    spec: ExperimentSpec, tune: TuneSpec, configurations: Sequence[Configuration], attempts: Sequence[Attempt]
) -> ExperimentPlan:
    """The attempts of `tune`, each trained once; what they lead to is planned when it is chosen."""
    texts = SectionTexts(EFFECT_FREE)
    seed = tune.choose_seed(spec.repeats.train_seeds)
    trials: list[TrialPlan] = []
    for attempt in attempts:
        metric = spec.primary_metric if tune.by == "metric" else None
        place = TuningPlace(configuration=attempt.of, values=to_jsonable(attempt.values), metric=metric)
        # under the id of a final trial with this seed and these values, which takes up the training
        trial = _plan_trial(spec, attempt.made, seed, texts)
        prompts = () if metric is None else trial.own_prompts
        own = {"name": attempt.name, "configuration": attempt.name, "tuning": place, "prompts": prompts}
        # what a final trial is scored by is not part of an attempt
        trials.append(trial.model_copy(update={**own, "metrics": (), "off_genre": (), "search": None}))
    # configurations that differ in what follows a training alone share their attempts
    shared = find_shared(
        (attempt.made, seed, trial.id) for attempt, trial in zip(attempts, trials, strict=True)
    )
    trials = [
        trial.model_copy(update={"training": shared[trial.id].leader}) if trial.id in shared else trial
        for trial in trials
    ]
    n_bases = len({_base_of(item, texts) for item in configurations})
    n_tuned = len({attempt.of for attempt in attempts})
    n_later = n_bases + len(configurations) + n_tuned * (len(spec.repeats.train_seeds) - 1)
    notes = (
        *tune.describe(n_tuned, n_later, spec.repeats.train_seeds, spec.primary_metric),
        *describe_unsized(configurations),
    )
    return ExperimentPlan(name=spec.name, spec=spec, trials=tuple(trials), n_later=n_later, notes=notes)


def _refuse_budget(lora: LoraSpec, _: ModelSpec) -> LoraSpec:
    raise ValueError(
        f"lora.budget {spell_count(lora.budget or 0)} needs the model's sizes, which this caller does not look up; use "
        "`lora_bench.plan_experiment`, or state lora.rank"
    )


def _plan_repeats(spec: ExperimentSpec, item: Configuration, texts: SectionTexts) -> list[TrialPlan]:
    """Return one trial per training seed; one where nothing is trained."""
    if item.external is not None:
        stated = {"kind": "external", "external": item.external, "lora": None, "search": None}
        return [_plan_trial(spec, item, None, texts).model_copy(update=stated)]
    seeds = spec.repeats.train_seeds if item.settings.lora.is_trained else (None,)
    return [_plan_trial(spec, item, seed, texts) for seed in seeds]


def _base_of(item: Configuration, texts: SectionTexts) -> str:
    """What the base model's clips depend on: configurations with the same text share a zero-shot trial."""
    return texts.write(_select_sections(item, is_tuned=False))


def _plan_zero_shot(
    spec: ExperimentSpec, configurations: list[Configuration], texts: SectionTexts
) -> dict[str, TrialPlan]:
    """The base model of every model, dataset and sampling that occurs, with as many clips as any trial needs."""
    configurations = [replace(item, external=None) for item in configurations]
    distinct: dict[str, list[Configuration]] = {}
    for item in configurations:
        distinct.setdefault(_base_of(item, texts), []).append(item)
    firsts = [group[0] for group in distinct.values()]
    sections = [drop_effect_free(_select_sections(item, is_tuned=False)) for item in firsts]
    varying = [name for other in sections[1:] for name in find_differences(sections[0], other)]
    trials: dict[str, TrialPlan] = {}
    for key, group in distinct.items():
        item = group[0]
        shown = [show_value(find_value(item.settings, item.changes, name)) for name in _name_parts(varying)]
        trial = _plan_trial(spec, item, None, texts, zero_shot_name=clean_name("-".join([ZERO_SHOT, *shown])))
        n_clips = max(other.settings.generation.n_clips for other in group)
        generation = trial.generation.model_copy(update={"n_clips": n_clips})
        trials[key] = trial.model_copy(update={"generation": generation})
    return _tell_apart(trials, distinct, [name for name in varying if name.startswith("dataset.")])


def _tell_apart(
    trials: Mapping[str, TrialPlan], distinct: Mapping[str, Sequence[Configuration]], varying: Sequence[str]
) -> dict[str, TrialPlan]:
    """Zero-shot trials, with the fields of one dataset that vary in the names of those that the names do not tell."""
    n_named = Counter(trial.name for trial in trials.values())
    told = dict(trials)
    for key, trial in trials.items():
        if n_named[trial.name] > 1:
            first = distinct[key][0]
            values = {
                name: find_value(first.settings, first.changes, name) for name in dict.fromkeys(varying)
            }
            shown = [label_field(name, value) for name, value in values.items()]
            name = clean_name("-".join([trial.name, *shown]))
            told[key] = trial.model_copy(update={"name": name, "configuration": name})
    return told


def _pair_with_baseline(trials: Sequence[TrialPlan], baseline: str | None) -> list[TrialPlan]:
    """Each trial with the baseline's trial of its seed, if both have the same noise and the same references.

    An adapter that exists already is compared with the baseline's first training.  Another system's clips are no pairs.
    """
    by_seed = {trial.train_seed: trial for trial in trials if trial.configuration == baseline}
    first = next(iter(by_seed.values()), None)
    paired: list[TrialPlan] = []
    for trial in trials:
        # an adapter that exists already has no seed: as the baseline, it is that of every training
        is_unseeded = trial.existing_adapter is not None or (first is not None and first.existing_adapter)
        other = first if is_unseeded else by_seed.get(trial.train_seed)
        is_pair = (
            other is not None
            and trial.external is None
            and other.configuration != trial.configuration
            and (other.model, other.dataset.recordings) == (trial.model, trial.dataset.recordings)
            and (other.generation.clip_s, other.generation.seed)
            == (trial.generation.clip_s, trial.generation.seed)
        )
        paired.append(trial.model_copy(update={"baseline_trial": other.id}) if other and is_pair else trial)
    return paired


def _name_parts(varying: list[str]) -> list[str]:
    """Fields that tell zero-shot rows apart in their names; a dataset is told by its name alone."""
    return list(dict.fromkeys("dataset" if name.startswith("dataset.") else name for name in varying))


def _plan_trial(
    spec: ExperimentSpec,
    item: Configuration,
    seed: int | None,
    texts: SectionTexts,
    zero_shot_name: str | None = None,
) -> TrialPlan:
    """One trial: that of the base model if it has a `zero_shot_name`; else without a seed nothing is trained."""
    configuration = zero_shot_name or item.name
    several = seed is not None and len(spec.repeats.train_seeds) > 1
    name = f"{configuration}-s{seed}" if several else configuration
    settings, is_tuned, is_trained = item.settings, zero_shot_name is None, seed is not None
    lora = settings.lora.model_copy(update={"alpha": settings.lora.resolved_alpha, "budget": None})
    is_kept = not is_trained or spec.baseline in (item.name, *item.aliases)
    return TrialPlan(
        id=f"{slugify(name, max_length=MAX_SLUG)}-{_hash_settings(item, seed, texts, is_tuned=is_tuned)}",
        name=name,
        configuration=configuration,
        kind="fine-tuned" if is_tuned else ZERO_SHOT,
        model=settings.model,
        dataset=settings.dataset if is_tuned else settings.dataset.whole,
        lora=lora if is_tuned else None,
        budget=settings.lora.budget if is_trained and has_setting(settings.lora.kind, "budget") else None,
        train=settings.train if is_trained else None,
        train_seed=seed,
        generation=settings.generation
        if is_tuned
        else settings.generation.model_copy(update={_STRENGTH: 1.0}),
        prompts=tuple(spec.prompts),
        metrics=tuple(spec.metrics),
        encoders=spec.encoders,
        distances=spec.distances,
        off_genre=spec.off_genre,
        changes=to_jsonable(item.changes) if is_tuned else {},
        aliases=tuple(item.aliases) if is_tuned else (),
        early_stopping=None if is_kept else spec.search.early_stopping,
        search=_place_in_search(spec, item) if is_tuned else None,
    )


def _place_in_search(spec: ExperimentSpec, item: Configuration) -> SearchPlace | None:
    if spec.search.optuna is None or not item.cells:
        return None
    return SearchPlace(cells=tuple(item.cells), is_wanted=item.is_wanted)


def _hash_settings(item: Configuration, seed: int | None, texts: SectionTexts, *, is_tuned: bool) -> str:
    """Eight digits of the hash of everything that a trial's clips depend on."""
    chosen = _select_sections(item, is_tuned=is_tuned)
    if item.external is not None:  # of sampling, the length, and the seed that a command gets
        used = {"clip_s"} if item.external.clips is not None else {"clip_s", "seed"}
        generation = {key: value for key, value in chosen["generation"].items() if key in used}
        kept = {name: chosen[name] for name in ("model", "dataset", "external")}
        chosen = {**kept, "generation": generation}
    sections = texts.write(chosen)
    facts = {"version": ID_VERSION, "train_seed": seed, "settings": sections}
    return hashlib.sha256(write_canonical(facts).encode()).hexdigest()[:8]


def _select_sections(item: Configuration, *, is_tuned: bool) -> dict[str, PlainSection]:
    """The sections that count.

    A dataset, model or adapter in a local folder counts by its absolute path, a built-in one by its name.
    """
    if is_tuned:
        return dict(item.identity)
    sections = {name: section for name, section in item.identity.items() if name not in _UNTUNED_WITHOUT}
    if _STRENGTH in sections["generation"]:  # the base model has none
        sections["generation"] = {
            name: value for name, value in sections["generation"].items() if name != _STRENGTH
        }
    if "size" in sections["dataset"]:  # its references are the same for all sizes
        sections["dataset"] = {name: value for name, value in sections["dataset"].items() if name != "size"}
    return sections
