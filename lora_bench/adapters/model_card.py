"""The model card of an adapter or of merged weights, from the report."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from lora_bench.adapters.choose import ChosenTrial
from lora_bench.forecast.shapes import find_shape
from lora_bench.planning.trial_plan import TrialPlan
from lora_bench.report.cells import DESCRIPTIVE, number_columns, text_columns
from lora_bench.report.formatting import (
    MISSING,
    add_interval,
    clean_text,
    count_noun,
    format_duration,
    format_with_error,
    format_with_interval,
    shorten,
    write_setting,
)
from lora_bench.report.sections.warnings import write_warnings
from lora_bench.report.view import RunView, arrow
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Code,
    CodeBlock,
    Heading,
    Paragraph,
    Table,
    Text,
)
from lora_bench.report.writers.markdown import write_markdown
from lora_bench.results.records import Contrast, ScoreRecord
from lora_bench.results.run_records import TrialResult
from lora_bench.results.settings import read_section
from lora_bench.spec.schema import ModelSpec
from lora_bench.store import JsonObject

MAX_PROMPTS = 40


@dataclass(frozen=True)
class CardFacts:
    """Facts that no file of the run holds.

    Attributes:
        name: of the folder or repository, as the loading example names it.
        base_name: how people know the base model (hub id, or a local folder's last part).
        licence: identifier of the licence that the result is given under; None is not stated.
    """

    name: str
    base_name: str
    licence: str | None = None


@dataclass(frozen=True)
class BaseLicence:
    """Licence of base weights: the hub's identifier, and what it means in a sentence."""

    id: str
    text: str


def find_licence(base_name: str) -> BaseLicence | None:
    """Return the licence of base weights; None if it is unknown.

    Source: the model cards of `facebook/musicgen-*`; the pocket model's `CARD.md`.
    """
    if base_name.startswith(("facebook/musicgen-", "facebook/audiogen-", "facebook/magnet-")):
        return BaseLicence(
            "cc-by-nc-4.0",
            "The base weights are under CC-BY-NC 4.0: no commercial use, of what is made from them either.",
        )
    if base_name == "pocket":
        return BaseLicence(
            "other",
            "The base weights are lora_bench's pocket model; its card (lora_bench/models/pocket/CARD.md) asks to treat "
            "them as GPL-2+ and CC-BY-SA-3.0 material: share alike, and name the sources of its training music.",
        )
    return None


def write_card(chosen: ChosenTrial, facts: CardFacts, *, merged: bool) -> str:
    """Return `README.md` with the front matter that the hub reads."""
    return _write_front_matter(chosen, facts, merged=merged) + write_markdown(
        _build_card(chosen, facts, merged=merged)
    )


def _write_front_matter(chosen: ChosenTrial, facts: CardFacts, *, merged: bool) -> str:
    base = find_licence(facts.base_name)
    licence = facts.licence or (base.id if base else None)
    head: dict[str, object] = {}
    if licence:
        head["license"] = licence
    if "/" in facts.base_name:
        head |= {"base_model": facts.base_name, "base_model_relation": "finetune" if merged else "adapter"}
    head |= {
        "library_name": "transformers" if merged else "peft",
        "pipeline_tag": "text-to-audio",
        "tags": ["musicgen", "lora", "lora-bench"],
        "model-index": [{"name": facts.name, "results": list(_index_results(chosen))}],
    }
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n\n"


def _index_results(chosen: ChosenTrial) -> Iterator[JsonObject]:
    """Yield the scores over the genre's prompts in the hub's form (`model-index`), without those that are missing."""
    view = chosen.view
    data = str(view.results.dataset.name or "unknown")
    metrics = [
        {
            "type": metric,
            "name": f"{metric} over {view.pooled}",
            "value": score.best_value,
            "verified": False,
        }
        for metric in view.metrics
        if (score := view.score(chosen.plan.id, metric, None)) is not None
    ]
    if metrics:
        yield {
            "task": {"type": "text-to-audio"},
            "dataset": {"type": data, "name": f"{data}, held-out tracks"},
            "metrics": metrics,
        }


def _build_card(chosen: ChosenTrial, facts: CardFacts, *, merged: bool) -> Iterator[Block]:
    view, trial = chosen.view, _find_trial(chosen)
    origin = "trained and scored" if trial.existing_adapter is None else "scored"
    what = "MusicGen weights with a LoRA merged in" if merged else "A LoRA adapter of MusicGen"
    yield Heading(1, facts.name, "top")
    warnings = " ".join(write_warnings(view))
    if warnings:
        name = view.results.model.name or facts.base_name
        yield Paragraph(warnings.replace(name, facts.base_name), is_warning=True)  # the name may be a path
    yield Paragraph(
        (f"{what}, {origin} by lora_bench: trial ", Code(trial.id), " of the run ",
         Code(view.results.name), ".")
    )  # fmt: skip
    if chosen.reason:
        yield Paragraph(f"How it was chosen: {clean_text(chosen.reason)}.")
    yield from _build_base(view, facts)
    yield from _build_data(view, chosen.plan)
    yield from _build_scores(view, trial)
    yield from _describe_strength(chosen.plan.generation.adapter_scale, merged=merged)
    yield from _build_training(trial)
    yield from _build_loading(trial, facts, _name_class(chosen.plan.model), merged=merged)


def _find_trial(chosen: ChosenTrial) -> TrialResult:
    return next(trial for trial in chosen.view.trials if trial.id == chosen.plan.id)


def _build_base(view: RunView, facts: CardFacts) -> Iterator[Block]:
    model = view.results.model
    licence = find_licence(facts.base_name)
    yield Heading(2, "Base model and licence", "base")
    facts_: list[Text] = [("base model: ", Code(facts.base_name))]
    revision = read_section(view.spec, "model").get("revision")
    if revision:
        facts_.append(("revision: ", Code(str(revision))))
    if model.weights_hash:
        facts_.append(("SHA-256 over its weight files: ", Code(model.weights_hash)))
    facts_.append(
        licence.text
        if licence
        else "The licence of the base weights is not known to lora_bench; look it up before you pass this on."
    )
    yield Bullets(tuple(facts_))


def _build_data(view: RunView, plan: TrialPlan) -> Iterator[Block]:
    dataset = view.results.dataset
    train, held_out = dataset.train, dataset.eval
    is_trained, size = plan.existing_adapter is None, plan.dataset.size
    yield Heading(2, "Training data" if is_trained else "Data", "data")
    if not is_trained:
        yield Paragraph(
            "The adapter was not trained in this run, which does not know its training data. The following is the "
            "data that it was scored with."
        )
    if train is None or held_out is None:
        yield Paragraph("The run holds no description of its data.")
        return
    yield Paragraph(
        f"{count_noun(train.n_tracks, 'track')} ({format_duration(train.duration_s)}) of "
        f"{clean_text(str(dataset.name))}, content hash {dataset.key}; "
        + (f"{count_noun(dataset.selection.n_tracks, 'track')} to select by; " if dataset.selection else "")
        + "the scores are measured against "
        f"{count_noun(held_out.n_tracks, 'track')} ({format_duration(held_out.duration_s)}), held out before slicing."
    )
    if is_trained and size is not None and not size.is_whole:
        part = f"{size.tracks}" if size.tracks is not None else f"{size.minutes:g} minutes or slightly more"
        yield Paragraph(f"Of the {count_noun(train.n_tracks, 'track')}, it was trained on {part}.")
    if read_section(view.spec, "dataset").get("builtin") is None:
        yield Paragraph(
            "The run does not know the licence of these recordings; look it up before you pass this on."
        )


def _build_scores(view: RunView, trial: TrialResult) -> Iterator[Block]:
    """Yield zero-shot and this trial side by side, per metric and prompt, with intervals and verdicts."""
    yield Heading(2, "Scores", "scores")
    shown = view.prompts[:MAX_PROMPTS]
    columns = (
        *text_columns("prompt"),
        *number_columns("zero-shot", "this adapter", "difference (95 % interval)"),
        *text_columns("verdict"),
    )
    for metric in view.metrics:
        rows = tuple(
            (
                Cell(view.pooled if prompt is None else shorten(prompt, 80)),
                Cell(_describe_score(view.score(trial.zero_shot or "", metric, prompt))),
                Cell(_describe_score(view.score(trial.id, metric, prompt))),
                *_describe_difference(view.contrast(trial.configuration, metric, prompt)),
            )
            for prompt in (*shown, None)
        )
        yield Table(f"{metric} {arrow(metric)}, with 95 % intervals", columns, rows)
    if len(shown) < len(view.prompts):
        yield Paragraph(f"Shown are the first {len(shown)} of {len(view.prompts)} prompts.")
    settings = ", ".join(
        # of a path the name alone, for cards are published
        f"{key.replace('_', ' ')} {Path(str(value)).name if key == 'melodies' else write_setting(value)}"
        for key, value in view.generation.items()
        if value is not None or key not in {"quantization", "melodies"}
    )
    yield Paragraph(
        "Values are corrected for the bias of finite samples where that is defined (marked c), and compare with "
        "other runs only where data, metric and protocol agree. Differences from zero-shot with an interval are "
        "corrected too, so they are not those of values without the mark. They are means over training seeds; "
        f"verdicts come from simultaneous 95 % intervals. Generation: {settings}."
    )


def _describe_strength(strength: float, *, merged: bool) -> Iterator[Block]:
    """Yield at what strength the adapter was scored, if not as it was trained."""
    if strength == 1.0:
        return
    meaning = f"base weights W0 and adapted weights W give W0 + {strength:g} (W - W0)"
    if merged:
        yield Paragraph(f"The adapter was scored, and is merged in, at strength {strength:g}: {meaning}.")
        return
    scored = (
        f"The adapter was scored at strength {strength:g}: {meaning}. Its files hold it as it was trained, at strength "
        "1; "
    )
    command = Code(f"lora-bench generate --adapter FOLDER --adapter-scale {strength:g}")
    yield Paragraph((scored, command, " applies it as it was scored."))


def _describe_score(score: ScoreRecord | None) -> str:
    if score is None:
        return MISSING
    mark = "" if score.corrected is None else " c"
    value = format_with_error(score.best_value, score.se).partition("\u00a0")[0]
    return add_interval(f"{value}{mark}", score.ci_low, score.ci_high)


def _describe_difference(compared: Contrast | None) -> tuple[Cell, Cell]:
    if compared is None:
        return Cell(MISSING), Cell(MISSING)
    text = format_with_interval(compared.delta, compared.ci_low, compared.ci_high, compared.se)
    return Cell(text), Cell(compared.verdict or DESCRIPTIVE)


def _build_training(trial: TrialResult) -> Iterator[Block]:
    yield Heading(2, "Training", "training")
    settings = {**(trial.lora or {}), **(trial.train or {})}
    if trial.existing_adapter is None:
        settings["training seed"] = trial.train_seed
    else:
        del settings["path"]  # of this machine
        yield Paragraph(
            "The adapter was not trained in this run; these are the settings that its files state."
        )
    facts: list[Text] = [
        f"{key.replace('_', ' ')}: {write_setting(value)}" for key, value in settings.items()
    ]
    if trial.n_params:
        facts.append(f"parameters: {trial.n_params:,}")
    if trial.trainable_params:
        facts.append(f"trainable parameters: {trial.trainable_params:,}")
    if trial.matched_modules:
        facts.append(f"adapted modules: {write_setting(trial.matched_modules)}")
    before, after = trial.losses.first_eval, trial.losses.last_eval
    if before is not None and after is not None:
        facts.append(f"held-out loss in nats per code: {before:.4f} before, {after:.4f} after training")
    yield Bullets(tuple(facts))


def _name_class(model: ModelSpec) -> str:
    """Return the name of transformers' class for a model."""
    shape = find_shape(model)
    is_melody = shape is not None and shape.decoder.melody is not None
    return "MusicgenMelodyForConditionalGeneration" if is_melody else "MusicgenForConditionalGeneration"


def _build_loading(trial: TrialResult, facts: CardFacts, class_name: str, *, merged: bool) -> Iterator[Block]:
    yield Heading(2, "How to load", "load")
    if merged:
        code = (
            f"from transformers import AutoTokenizer, {class_name}\n\n"
            f'model = {class_name}.from_pretrained("{facts.name}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{facts.name}")\n'
        )
    else:
        hub = "/" in facts.base_name
        base = (
            f'base = "{facts.base_name}"' if hub else f'base = "..."  # folder of {_comment(facts.base_name)}'
        )
        if facts.base_name == "pocket":
            base = "from lora_bench.models.pocket import pocket_folder\n\nbase = pocket_folder()"
        code = (
            f"from peft import PeftModel\nfrom transformers import AutoTokenizer, {class_name}\n"
            f"{base}\n"
            f"model = {class_name}.from_pretrained(base)\n"
            f'model = PeftModel.from_pretrained(model, "{facts.name}").eval()\n'
            "tokenizer = AutoTokenizer.from_pretrained(base)\n"
        )
    code += (
        'inputs = tokenizer(["a prompt"], return_tensors="pt")\n'
        "# 250 frames are 5 s at 50 frames/s; 3 more for the delays\n"
        "audio = model.generate(**inputs, do_sample=True, guidance_scale=3.0, max_new_tokens=253)\n"
    )
    yield CodeBlock(code.rstrip("\n"), "python")
    alpha = (trial.lora or {}).get("alpha")
    if not merged and alpha is not None:
        yield Paragraph(
            f"PEFT applies alpha ({write_setting(alpha)}) by itself; a program that reads the matrices alone must "
            "apply it too."
        )


def _comment(text: str) -> str:
    return clean_text(text).replace('"', "'")
