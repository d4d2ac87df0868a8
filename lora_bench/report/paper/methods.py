"""The methods section: every count and setting of a run in running text."""

from __future__ import annotations

import math
from collections.abc import Iterator

from lora_bench.report.answer import Answer
from lora_bench.report.formatting import count_noun, format_count, format_duration, join_words, write_setting
from lora_bench.report.metric_words import describe_metric
from lora_bench.report.paper.latex import escape_latex
from lora_bench.report.paper.references import Citations
from lora_bench.report.sections.tuning import describe_tuning, list_values
from lora_bench.report.view import Configuration, RunView
from lora_bench.results.records import Contrast, Settings
from lora_bench.results.run_records import DatasetSummary
from lora_bench.results.settings import read_section
from lora_bench.spec.clip_windows import WINDOW_S
from lora_bench.spec.schema import GenerationSpec

_EFFECT_FREE = {"checkpoint_every", "eval_every"}
_SAMPLING = {"guidance": "classifier-free guidance", "temperature": "temperature", "top_k": "top-$k$"}
_KINDS = {
    "lora": "LoRA", "dora": "DoRA", "rslora": "rsLoRA", "lora+": "LoRA+", "pissa": "PiSSA", "olora": "OLoRA",
    "eva": "EVA", "loha": "LoHa", "lokr": "LoKr", "oft": "OFT", "vera": "VeRA", "ia3": "IA3", "miss": "MiSS",
    "delora": "DeLoRA", "full": "full fine-tuning",
}  # fmt: skip


def write_methods(answer: Answer, citations: Citations) -> str:
    """Return paragraphs of LaTeX; what a run did not record is left out."""
    paragraphs = [
        ("Model and data", [*_tell_model(answer.view, citations), *_tell_data(answer.view)]),
        ("Adaptation", list(_tell_adapters(answer.view, citations))),
        ("Generation", [*_tell_generation(answer.view), *_tell_systems(answer.view)]),
        ("Metrics", list(_tell_metrics(answer, citations))),
        ("Inference", list(_tell_inference(answer))),
        ("Software and hardware", list(_tell_machine(answer.view, citations))),
    ]
    written = [rf"\paragraph{{{title}.}} {' '.join(lines)}" for title, lines in paragraphs if lines]
    return "\n\n".join(written) + "\n"


def _tell_model(view: RunView, citations: Citations) -> Iterator[str]:
    model, spec = view.results.model, read_section(view.spec, "model")
    name = escape_latex(str(model.name or spec.get("id") or "an unnamed model"))
    weights = rf" (SHA-256 of the weights \texttt{{{model.weights_hash[:16]}}})" if model.weights_hash else ""
    untrained = ", whose weights are random," if model.trained is False else ""
    shape = ""
    if model.n_codebooks and model.codebook_size:
        codebooks = f"{model.n_codebooks} codebooks of {model.codebook_size:,} codes"
        shape = f"; its codec {citations.cite('encodec')} has {codebooks}"
        if model.audio_format is not None and model.hop_samples:
            rate = model.audio_format.sample_rate_hz
            shape += f" at {rate / model.hop_samples:g} frames per second of audio at {rate:,} Hz"
    yield f"The base model is {name}{weights}{untrained} of the MusicGen family {citations.cite('musicgen')}{shape}."


def _tell_data(view: RunView) -> Iterator[str]:
    sources = view.results.sources
    if len(sources) < 2:
        yield from _tell_dataset(view.results.dataset, read_section(view.spec, "dataset", "split"))
        return
    for source in sources:
        yield f"Data {escape_latex(source.label)}:"
        yield from _tell_dataset(source.dataset, {})


def _tell_dataset(dataset: DatasetSummary, split: Settings) -> Iterator[str]:
    if dataset.train is None or dataset.eval is None:
        return
    held_out = f"{dataset.eval.n_tracks} ({dataset.eval.duration_s / 60:.1f} minutes) held out as references"
    sides = [
        f"{count_noun(dataset.train.n_tracks, 'track')} ({dataset.train.duration_s / 60:.1f} minutes) for training"
    ]
    if dataset.selection is not None:
        sides.append(f"{dataset.selection.n_tracks} for choices between configurations")
        held_out += ", which entered neither training nor any choice"
    how = ""
    if split:
        by, seed = (escape_latex(write_setting(split.get(key))) for key in ("by", "seed"))
        how = f", divided by {by} before slicing with seed {seed}"
    yield f"The genre is {escape_latex(str(dataset.name))}{how}: {join_words([*sides, held_out])}."
    if dataset.n_reference_clips:
        yield f"The held-out tracks give {count_noun(dataset.n_reference_clips, 'reference excerpt')}."
    if dataset.excluded:
        yield f"{count_noun(len(dataset.excluded), 'file')} could not be used."


def _tell_adapters(view: RunView, citations: Citations) -> Iterator[str]:
    if not view.fine_tuned:
        return
    seeds = max(item.n_seeds for item in view.fine_tuned)
    shared = _find_shared([trial.train or {} for item in view.fine_tuned for trial in item.trials])
    names = [_describe_adapter(item, citations, has_rate="lr" not in shared) for item in view.fine_tuned]
    each = f", trained with {count_noun(seeds, 'seed')} each" if seeds else ""
    were = "was" if len(names) == 1 else "were"
    yield f"{count_noun(len(names), 'configuration')} of adapters {were} compared{each}: {'; '.join(names)}."
    words = [
        f"{escape_latex(key.replace('_', ' '))} {escape_latex(write_setting(value))}"
        for key, value in shared.items()
        if value is not None and value is not False and key not in _EFFECT_FREE
    ]
    if words:
        yield f"Training settings shared by all: {', '.join(words)}."
    if view.results.tuning is not None:
        yield escape_latex(
            f"{describe_tuning(view.results.tuning, seeds)} Values: {list_values(view.results.tuning)}."
        )


def _describe_adapter(item: Configuration, citations: Citations, *, has_rate: bool) -> str:
    first = next((trial for trial in item.trials if trial.trainable_params is not None), item.trials[0])
    lora = first.lora or {}
    kind = str(lora.get("kind") or "lora")
    parts = [f"{_KINDS.get(kind, escape_latex(kind))} {citations.cite(kind)}".strip()]
    parts += [
        f"{word.replace('_', ' ')} {escape_latex(write_setting(lora[word]))}"
        for word in ("rank", "alpha", "block_size", "targets", "dropout")
        if lora.get(word) is not None
    ]
    if has_rate and (first.train or {}).get("lr") is not None:
        parts.append(f"learning rate {escape_latex(write_setting((first.train or {})['lr']))}")
    if first.trainable_params is not None:
        parts.append(f"{format_count(first.trainable_params)} trainable parameters")
    return rf"\textsf{{{escape_latex(item.name)}}} ({', '.join(parts)})"


def _find_shared(documents: list[Settings]) -> Settings:
    """Return the settings that have one value in all documents."""
    first, *others = documents
    return {
        key: value for key, value in first.items() if all(other.get(key, ...) == value for other in others)
    }


def _tell_systems(view: RunView) -> Iterator[str]:
    if not view.systems:
        return
    names = join_words([rf"\textsf{{{escape_latex(item.name)}}}" for item in view.systems])
    yield (
        f"Clips of other systems ({names}) were brought to the format of the recordings and compared with zero-shot "
        "without pairs, because their noise is their own; for codec-matched metrics they passed through the codec."
    )


def _tell_generation(view: RunView) -> Iterator[str]:
    settings = view.generation
    if not settings:
        return
    n_prompts, n_off = len(view.results.planned.prompts), len(view.results.planned.off_genre)
    clips = escape_latex(write_setting(settings.get("n_clips")))
    length = escape_latex(write_setting(settings.get("clip_s")))
    off = f", {n_off} of which {'is' if n_off == 1 else 'are'} not of the genre" if n_off else ""
    each = f"for {'' if n_prompts == 1 else 'each of '}{count_noun(n_prompts, 'prompt')}{off}"
    yield f"Each configuration generated {clips} clips of {length} s {each}."
    prompts = [
        f"({view.long_prompts[prompt]}) ``{escape_latex(prompt)}''"
        if prompt in view.long_prompts
        else f"``{escape_latex(prompt)}''"
        for prompt in view.results.planned.prompts
    ]
    if prompts:
        yield f"The prompt{' is' if len(prompts) == 1 else 's are'} {'; '.join(prompts)}."
    sampling = [
        f"{word} {escape_latex(write_setting(settings[key]))}"
        for key, word in _SAMPLING.items()
        if settings.get(key) is not None
    ]  # fmt: skip
    if sampling:
        yield f"Sampling used {join_words(sampling)}."
    clip_s = settings.get("clip_s")
    if isinstance(clip_s, int | float) and clip_s > WINDOW_S:
        overlap = escape_latex(write_setting(settings.get("overlap_s", GenerationSpec().overlap_s)))
        yield (
            f"Clips were made in windows of {WINDOW_S:g} s, each of which began with the last {overlap} s of the one "
            "before."
        )
    yield from _tell_melodies(view, is_shared=settings.get("melodies") is not None)
    yield "Clips with the same prompt and index share their noise in all configurations."
    if settings.get("quantization"):
        yield f"Decoding was approximate ({escape_latex(write_setting(settings['quantization']))}) throughout."


def _tell_melodies(view: RunView, *, is_shared: bool) -> Iterator[str]:
    """Say that clips follow melodies, and by which order, if that is the same in all configurations."""
    scores = (score for trial in view.results.trials for score in trial.scores)
    known = (score.provenance.get("n_melodies") for score in scores)
    counts = {count for count in known if isinstance(count, int)}
    if not is_shared:
        yield from ["Clips of some configurations followed melodies."] * bool(counts)
    elif counts == {1}:
        yield "All clips followed one melody."
    else:
        n = escape_latex(join_words([str(count) for count in sorted(counts)])) or "$N$"
        yield f"Clips followed melodies: clip $i$ of a prompt followed number $i$ mod {n} of {n}."


def _tell_metrics(answer: Answer, citations: Citations) -> Iterator[str]:
    for metric in sorted(answer.view.metrics, key=lambda name: name != answer.metric):
        about = describe_metric(metric)
        role = "the primary metric" if metric == answer.metric else "descriptive"
        told = f", is the {escape_latex(about)}" if about else ""
        words = rf"\texttt{{{escape_latex(metric)}}}, {role}{told} {citations.cite_metric(metric)}"
        yield f"{words.rstrip()}."


def _tell_inference(answer: Answer) -> Iterator[str]:
    found = [item for item in answer.view.results.contrasts if item.primary]
    if not found:
        return
    sides = join_words([escape_latex(name) for name in dict.fromkeys(item.against for item in found)])
    yield (
        f"Differences from {sides} are paired by prompt and noise and corrected for the bias of finite samples. "
        "Their variance is the sum of delete-one-cluster jackknife variances over clips and over reference tracks"
        + (", and of the variance between training seeds" if any(item.n_seeds > 1 for item in found) else "")
        + ", with degrees of freedom after Welch and Satterthwaite."
    )
    families = {item.against: item.provenance.get("family_size") for item in reversed(found)}
    sizes = [f"{size or len(found)} differences from {escape_latex(name)}" for name, size in families.items()]
    yield (
        "Verdicts come from 95~\\% intervals that hold simultaneously over a declared family of "
        f"{', and over another of '.join(reversed(sizes))}; everything else is descriptive."
    )
    margins = sorted({item.margin for item in found if item.margin is not None})
    if margins:
        shown = f"{margins[0]:.3g}" if len(margins) == 1 else f"{margins[0]:.3g} to {margins[-1]:.3g}"
        yield f"Differences within {shown} count as none."
    yield _tell_power(found)
    looks = read_section(answer.view.spec, "verdict").get("looks")
    if isinstance(looks, list) and looks:
        after = join_words([str(n) for n in looks])
        yield f"Verdicts were looked at after {after} clips, with error spending over the looks."
    if all(item.n_seeds < 2 for item in found):
        yield "With one training each, results speak about these adapters and not about their settings."


def _tell_power(found: list[Contrast]) -> str:
    known = sorted(item.detectable for item in found if item.detectable is not None)
    if not known:
        return "The number of clips or tracks allows no interval."
    reach = f"{known[0]:.3g}" if len(known) == 1 else f"{known[0]:.3g} to {known[-1]:.3g}"
    return f"The design detects differences of {reach} with a probability of 80~\\%."


def _tell_machine(view: RunView, citations: Citations) -> Iterator[str]:
    machine = view.results.environment
    versions = [
        f"{escape_latex(name)} {escape_latex(version)} {citations.cite(name)}".strip()
        for name, version in machine.packages.items()
        if version
    ]
    if versions:
        python = f"Python {escape_latex(machine.python)}, " if machine.python else ""
        yield f"Software: {python}{', '.join(versions)}."
    if machine.cpu:
        gpus = f"; GPU {escape_latex(', '.join(machine.gpus))}" if machine.gpus else ", without a GPU"
        cpu = " with ".join(filter(None, [machine.cpu, machine.instruction_set]))
        yield f"Hardware: {escape_latex(cpu)}, {machine.n_cpu or 'an unknown number of'} cores{gpus}."
    totals = [trial.total_s for trial in view.trials if trial.total_s is not None]
    if totals:
        yield f"All trials together took {escape_latex(format_duration(math.fsum(totals)))} of wall time."
