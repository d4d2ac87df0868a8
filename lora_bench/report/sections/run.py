"""Sections about what a run was made from: data, model, settings, provenance, how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

import yaml

from lora_bench.report.formatting import clean_text, count_noun, format_count, write_setting
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Code,
    CodeBlock,
    Column,
    Heading,
    Paragraph,
    Span,
    Table,
    Text,
)

Json = dict[str, Any]
MAX_EXCLUDED = 50


def build_dataset(view: RunView) -> Iterator[Block]:
    """Tracks, minutes, split, and the files that were left out, with the reasons."""
    sources: list[Json] = view.results.get("sources") or []
    if len(sources) < 2:
        yield Heading(2, "Dataset", "dataset")
        yield from _describe_dataset(view.results.get("dataset") or {}, view.spec.get("dataset") or {})
        return
    yield Heading(2, "Datasets", "dataset")
    for index, source in enumerate(sources):
        yield Heading(3, str(source["label"]), f"dataset-{index + 1}")
        yield from _describe_dataset(source.get("dataset") or {}, {})
        names = (view.names_of_trials.get(str(trial), str(trial)) for trial in source["trial_ids"])
        yield Paragraph(f"Trials: {', '.join(names)}.")


def _describe_dataset(dataset: Json, spec: Json) -> Iterator[Block]:
    if not dataset:
        yield Paragraph("The run holds no description of its dataset.")
        return
    rows = tuple(
        (
            Cell({"train": "training", "eval": "held out (references)"}[split]),
            Cell(format_count(dataset[split]["n_tracks"]), order=dataset[split]["n_tracks"]),
            Cell(f"{dataset[split]['duration_s'] / 60:.1f}", order=dataset[split]["duration_s"]),
            Cell(format_count(dataset[split]["n_slices"]), order=dataset[split]["n_slices"]),
        )
        for split in ("train", "eval")
    )
    columns = (
        Column("side", is_numeric=False),
        Column("tracks"),
        Column("minutes"),
        Column("training-length slices"),
    )
    yield Table("The two sides of the dataset", columns, rows)
    audio: Json = dataset.get("format") or {}
    split_spec: Json = spec.get("split") or {}
    facts: list[Text] = [
        ("name: ", Code(str(dataset.get("name")))),
        ("content hash: ", Code(str(dataset.get("key")))),
    ]
    if split_spec:
        facts.append(
            f"split by {split_spec.get('by', 'track')} before slicing, share held out "
            f"{split_spec.get('eval_frac', 'unknown')}, split seed {split_spec.get('seed', 'unknown')}"
        )
    if audio:
        facts.append(f"prepared at {audio.get('sample_rate_hz')} Hz, {audio.get('channels')} channel(s)")
    facts.append(f"resampler: {dataset.get('resampler')}; training slices of {dataset.get('clip_s')} s")
    if dataset.get("n_reference_clips"):
        facts.append(
            f"{count_noun(dataset['n_reference_clips'], 'reference clip')} cut from the held-out tracks"
        )
    yield Bullets(tuple(facts))
    yield from _list_excluded(dataset.get("excluded") or [])


def _list_excluded(excluded: list[Json]) -> Iterator[Block]:
    if not excluded:
        yield Paragraph("No file was left out.")
        return
    yield Paragraph(f"{count_noun(len(excluded), 'file')} left out:")
    yield Bullets(
        tuple(
            (Code(clean_text(item["source"])), ": " + clean_text(item["reason"]))
            for item in excluded[:MAX_EXCLUDED]
        )
    )
    if len(excluded) > MAX_EXCLUDED:
        yield Paragraph(f"... and {len(excluded) - MAX_EXCLUDED:,} more, listed in dataset.json.")


def build_model(view: RunView) -> Iterator[Block]:
    """What was adapted."""
    model: Json = view.results.get("model") or {}
    spec: Json = view.spec.get("model") or {}
    yield Heading(2, "Model", "model")
    trained = {"True": "trained", "False": "untrained: random weights that stand in for a real model"}
    facts: list[Text] = [
        ("model: ", Code(str(model.get("name") or spec.get("id") or "unknown"))),
        f"weights: {trained.get(str(model.get('trained')), 'not recorded whether trained')}",
    ]
    if model.get("weights_hash"):
        facts.append(("weights hash: ", Code(str(model["weights_hash"]))))
    facts += [
        f"{key.replace('_', ' ')}: {write_setting(model[key])}"
        for key in model
        if key not in {"name", "trained", "weights_hash"}
    ]
    facts += [
        f"{key} asked for: {write_setting(value)}"
        for key, value in spec.items()
        if key != "id" and value is not None
    ]
    yield Bullets(tuple(facts))


APPROXIMATE = (
    "weights and activations were rounded to 8 bits, keys and values of the past to bfloat16. The clips are other ones "
    "than exact arithmetic gives, and their scores compare with exact ones only as far as the effect is known."
)


def build_generation(view: RunView) -> Iterator[Block]:
    """How clips were sampled, the same for every column."""
    generation: Json = view.spec.get("generation") or {}
    if not generation:
        return
    yield Heading(2, "Generation", "generation")
    yield Paragraph("The same settings and the same noise per clip for zero-shot and fine-tuned.")
    names = {
        "top_k": "top k",
        "n_clips": "clips per prompt",
        "clip_s": "clip length (s)",
        "guidance": "guidance scale",
    }
    yield Bullets(
        tuple(
            f"{names.get(k, k.replace('_', ' '))}: {write_setting(v)}"
            for k, v in generation.items()
            if v is not None or k != "quantization"
        )
    )
    rounded = [
        str(trial.get("name"))
        for trial in view.results.get("trials") or []
        if (trial.get("changes") or {}).get("generation.quantization")
    ]
    if generation.get("quantization"):
        yield Paragraph(f"Decoding was approximate for zero-shot and fine-tuned alike: {APPROXIMATE}")
    elif rounded:
        yield Paragraph(f"Decoding was approximate in {', '.join(rounded)}: {APPROXIMATE}")


def build_provenance(view: RunView) -> Iterator[Block]:
    """Per metric, what its numbers were computed with; then package versions."""
    yield Heading(2, "Provenance", "provenance")
    for metric in view.metrics:
        scores = [score for trial in view.trials for score in trial["scores"] if score["metric"] == metric]
        scores += [floor for floor in view.part("floors") if floor.get("metric") == metric]
        if not scores:
            yield Paragraph((Code(metric), ": not scored."))
            continue
        facts = _collect_facts(scores)
        words = "; ".join(f"{_name_fact(key)} {_join_values(values)}" for key, values in facts.items())
        yield Paragraph((Code(metric), f": {words}."))
    packages: Json = (view.results.get("environment") or {}).get("packages") or {}
    versions = [f"{name} {version}" for name, version in packages.items() if version]
    if versions:
        python = (view.results.get("environment") or {}).get("python")
        yield Paragraph("Software: " + ", ".join([f"Python {python}"] * bool(python) + versions) + ".")


def _collect_facts(scores: list[Json]) -> dict[str, list[Any]]:
    """Distinct values of every fact in the scores' provenance, in order of appearance."""
    facts: dict[str, dict[Any, None]] = {}
    for score in scores:
        counts = {key: score.get(key) for key in ("dim", "n_generated", "n_reference")}
        for key, value in (counts | (score.get("provenance") or {})).items():
            if value is not None:
                facts.setdefault(key, {})[value if isinstance(value, str | int | float) else str(value)] = (
                    None
                )
    return {key: list(values) for key, values in facts.items()}


def _name_fact(key: str) -> str:
    names = {"dim": "D =", "n_generated": "generated clips N =", "n_reference": "reference clips ="}
    return names.get(key, key.replace("_", " "))


def _join_values(values: list[Any]) -> str:
    """The values; many are only counted."""
    if len(values) > 4:
        return f"{len(values)} different values (see results.json)"
    return " or ".join(write_setting(value) for value in values)


def build_reproduction(view: RunView) -> Iterator[Block]:
    """The command, and the spec in full."""
    name = str(view.results["name"])
    yield Heading(2, "How to reproduce", "reproduce")
    yield Paragraph(("Save the spec below as ", Code(f"{name}.yaml"), " and run:"))
    yield CodeBlock(f"lora-bench run {name}.yaml", "sh")
    made_from = [Code(PurePath(str(source)).name)] if (source := view.results.get("source")) else []
    overrides = [Code(f"-o {item}") for item in view.results.get("overrides") or []]
    if made_from:
        told: list[Span] = ["The run was made from ", *made_from]
        for override in overrides:
            told += [" ", override]
        yield Paragraph((*told, "."))
    yield Paragraph("The spec as it was resolved, with every default:")
    text = yaml.safe_dump(json.loads(json.dumps(view.spec)), sort_keys=False, allow_unicode=True, width=100)
    yield CodeBlock(text.rstrip("\n") if view.spec else "(the run holds no spec)", "yaml")
