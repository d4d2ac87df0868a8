"""Sections about the inputs of a run: data, model, settings, provenance, how to repeat it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import PurePath

import yaml
from pydantic import JsonValue

from lora_bench.report.cells import number_cell, number_columns, text_columns
from lora_bench.report.formatting import clean_text, count_noun, format_count, write_setting
from lora_bench.report.sections.preparation import build_preparation
from lora_bench.report.view import RunView
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Code,
    CodeBlock,
    Heading,
    Paragraph,
    Span,
    Table,
    Text,
)
from lora_bench.results.records import ScoreRecord, Settings
from lora_bench.results.run_records import DatasetSummary, ExcludedFile
from lora_bench.results.settings import read_section

MAX_EXCLUDED = 50


def build_dataset(view: RunView) -> Iterator[Block]:
    """Yield tracks, minutes, split, and the files that were left out, with the reasons."""
    sources = view.results.sources
    if len(sources) < 2:
        yield Heading(2, "Dataset", "dataset")
        yield from _describe_dataset(view.results.dataset, read_section(view.spec, "dataset", "split"))
        for manifest in view.manifests:
            yield from build_preparation(manifest)
        return
    yield Heading(2, "Datasets", "dataset")
    manifests = view.manifests if len(view.manifests) == len(sources) else [None] * len(sources)
    for index, (source, manifest) in enumerate(zip(sources, manifests, strict=True)):
        yield Heading(3, source.label, f"dataset-{index + 1}")
        yield from _describe_dataset(source.dataset, {})
        if manifest is not None:
            yield from build_preparation(manifest)
        yield Paragraph(f"Trials: {', '.join(view.name_trial(trial) for trial in source.trial_ids)}.")


def _describe_dataset(dataset: DatasetSummary, split: Settings) -> Iterator[Block]:
    if dataset.train is None or dataset.eval is None:
        yield Paragraph("The run holds no description of its dataset.")
        return
    rows = tuple(
        (
            Cell(name),
            number_cell(side.n_tracks, format_count),
            number_cell(side.duration_s, lambda duration_s: f"{duration_s / 60:.1f}"),
            number_cell(side.n_slices, format_count),
        )
        for name, side in (
            ("training", dataset.train),
            ("selection (held-out loss, searches, choice of the best)", dataset.selection),
            ("held out (references)", dataset.eval),
        )
        if side is not None
    )
    columns = (*text_columns("side"), *number_columns("tracks", "minutes", "training-length slices"))
    yield Table(f"The {'two' if dataset.selection is None else 'three'} sides of the dataset", columns, rows)
    facts: list[Text] = [
        ("name: ", Code(str(dataset.name))),
        ("content hash: ", Code(str(dataset.key))),
        *([("fetched from: ", Code(dataset.source))] if dataset.source is not None else []),
    ]
    if split:
        facts.append(
            f"split by {split.get('by', 'track')} before slicing, share held out "
            f"{split.get('eval_frac', 'unknown')}, split seed {split.get('seed', 'unknown')}"
        )
    if dataset.format is not None:
        facts.append(f"prepared at {dataset.format.sample_rate_hz} Hz, {dataset.format.channels} channel(s)")
    facts.append(f"resampler: {dataset.resampler}; training slices of {dataset.clip_s} s")
    if dataset.n_reference_clips:
        facts.append(
            f"{count_noun(dataset.n_reference_clips, 'reference clip')} cut from the held-out tracks"
        )
    yield Bullets(tuple(facts))
    yield from _list_excluded(dataset.excluded)


def _list_excluded(excluded: Sequence[ExcludedFile]) -> Iterator[Block]:
    if not excluded:
        yield Paragraph("No file was left out.")
        return
    yield Paragraph(f"{count_noun(len(excluded), 'file')} left out:")
    yield Bullets(
        tuple(
            (Code(clean_text(file.source)), ": " + clean_text(file.reason))
            for file in excluded[:MAX_EXCLUDED]
        )
    )
    if len(excluded) > MAX_EXCLUDED:
        yield Paragraph(f"... and {len(excluded) - MAX_EXCLUDED:,} more, listed in dataset.json.")


def build_model(view: RunView) -> Iterator[Block]:
    """Yield what was adapted."""
    model, spec = view.results.model, read_section(view.spec, "model")
    yield Heading(2, "Model", "model")
    trained = {
        True: "trained",
        False: "untrained: random weights that stand in for a real model",
        None: "not recorded whether trained",
    }
    facts: list[Text] = [
        ("model: ", Code(str(model.name or spec.get("id") or "unknown"))),
        f"weights: {trained[model.trained]}",
    ]
    if model.weights_hash:
        facts.append(("weights hash: ", Code(model.weights_hash)))
    recorded = model.model_dump(mode="json", exclude_unset=True, exclude={"name", "trained", "weights_hash"})
    facts += [f"{key.replace('_', ' ')}: {write_setting(value)}" for key, value in recorded.items()]
    facts += [
        f"{key} asked for: {write_setting(value)}"
        for key, value in spec.items()
        if key != "id" and value is not None
    ]
    yield Bullets(tuple(facts))


APPROXIMATE = (
    "weights and activations were rounded to 8 bits, cached keys and values to bfloat16. The clips differ from those "
    "of exact arithmetic, and their scores compare with exact ones only as far as the effect is known."
)


def build_generation(view: RunView) -> Iterator[Block]:
    """Yield how clips were sampled, the same for every column."""
    generation = view.generation
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
    rounded = [trial.name for trial in view.results.trials if trial.changes.get("generation.quantization")]
    if generation.get("quantization"):
        yield Paragraph(f"Decoding was approximate for zero-shot and fine-tuned alike: {APPROXIMATE}")
    elif rounded:
        yield Paragraph(f"Decoding was approximate in {', '.join(rounded)}: {APPROXIMATE}")


def build_provenance(view: RunView) -> Iterator[Block]:
    """Yield, per metric, what its numbers were computed with; then package versions."""
    yield Heading(2, "Provenance", "provenance")
    for metric in view.metrics:
        scores = [*view.scores_on(metric), *(f for f in view.results.floors if f.metric == metric)]
        if not scores:
            yield Paragraph((Code(metric), ": not scored."))
            continue
        facts = _collect_facts(scores)
        words = "; ".join(f"{_name_fact(key)} {_join_values(values)}" for key, values in facts.items())
        yield Paragraph((Code(metric), f": {words}."))
    machine = view.results.environment
    versions = [f"{name} {version}" for name, version in machine.packages.items() if version]
    if versions:
        yield Paragraph(
            "Software: " + ", ".join([f"Python {machine.python}"] * bool(machine.python) + versions) + "."
        )


def _collect_facts(scores: Sequence[ScoreRecord]) -> dict[str, list[str | int | float]]:
    """Return distinct values of every fact in the scores' provenance, in order of appearance."""
    facts: dict[str, dict[str | int | float, None]] = {}
    for score in scores:
        counts = {"dim": score.dim, "n_generated": score.n_generated, "n_reference": score.n_reference}
        for key, value in {**counts, **score.provenance}.items():
            if value is not None:
                shown = value if isinstance(value, str | int | float) else str(value)
                facts.setdefault(key, {})[shown] = None
    return {key: list(values) for key, values in facts.items()}


def _name_fact(key: str) -> str:
    names = {"dim": "D =", "n_generated": "generated clips N =", "n_reference": "reference clips ="}
    return names.get(key, key.replace("_", " "))


def _join_values(values: Sequence[JsonValue]) -> str:
    """Return the values; of many only their number."""
    if len(values) > 4:
        return f"{len(values)} different values (see results.json)"
    return " or ".join(write_setting(value) for value in values)


def build_reproduction(view: RunView) -> Iterator[Block]:
    """Yield the command, and the spec in full."""
    name = view.results.name
    yield Heading(2, "How to reproduce", "reproduce")
    yield Paragraph(("Save the spec below as ", Code(f"{name}.yaml"), " and run:"))
    yield CodeBlock(f"lora-bench run {name}.yaml", "sh")
    if view.results.source:
        origin: list[Span] = ["The run was made from ", Code(PurePath(view.results.source).name)]
        for item in view.results.overrides:
            origin += [" ", Code(f"-o {item}")]
        yield Paragraph((*origin, "."))
    yield Paragraph("The spec as it was resolved, with every default:")
    text = yaml.safe_dump(json.loads(json.dumps(view.spec)), sort_keys=False, allow_unicode=True, width=100)
    yield CodeBlock(text.rstrip("\n") if view.spec else "(the run holds no spec)", "yaml")
