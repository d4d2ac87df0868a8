"""Notes below a plan for a GPU: memory by stage, trials that do not fit, and what a forecast on paper assumes."""

from __future__ import annotations

from collections.abc import Sequence

from lora_bench.cli.outlook import Outlook
from lora_bench.forecast import StagePeaks
from lora_bench.forecast.cards import Card
from lora_bench.forecast.roofline import EFFICIENCY
from lora_bench.forecast.stage_memory import CONTEXT_GIB, SOUND_BATCH
from lora_bench.machine.gpus import count_sharing
from lora_bench.planning.trial_plan import TrialPlan


def describe_gpu(
    outlooks: Sequence[Outlook], n_gpus: float, card: Card | None, *, on_paper: bool
) -> list[str]:
    """Return the notes; none for trials on a CPU.

    Args:
        outlooks: of all trials.
        n_gpus: of a trial; a fraction lets trials share a GPU.
        card: the GPU; None if its name is not known.
        on_paper: whether the time is from the card's data sheet.
    """
    largest: dict[str, tuple[float, str]] = {}
    for outlook in outlooks:
        stages, model = outlook.prediction.stages, outlook.trial.model.id
        if stages is not None and outlook.is_open:
            text = f"memory by stage with {model}, at most: {_describe_stages(outlook.trial, stages)}"
            largest[model] = max(largest.get(model, (0.0, "")), (stages.peak_gib, text))
    if not largest:
        return []
    notes = [text for _, text in largest.values()]
    if card is not None:
        notes += _list_misfits(outlooks, n_gpus, card)
    if on_paper and card is not None:
        halves = (
            "no bfloat16" if card.bfloat16_tflops is None else f"{card.bfloat16_tflops:g} TFLOP/s in bfloat16"
        )
        notes.append(
            f"on paper: {card.name} by its data sheet ({card.memory_gb:g} GB, {card.bandwidth_gb_s:g} GB/s, {halves}, "
            f"{card.float32_tflops:g} in float32); assumed, not measured: {EFFICIENCY:.0%} of these peaks are reached; "
            "not in the time: loading, held-out loss, scores, other work of the CPU"
        )
    return notes


def _describe_stages(trial: TrialPlan, stages: StagePeaks) -> str:
    generation, train = trial.generation, trial.train
    parts = [f"encoding the dataset {stages.encoding:.1f} GiB"]
    if stages.training is not None and train is not None:
        parts.append(
            f"training {stages.training:.1f} ({train.batch_size} slices of {trial.dataset.clip_s:g} s)"
        )
    if stages.decoding is None or stages.sound is None or stages.n_clips is None:
        parts.append("decoding half of the memory that is free then (set generation.batch_size to limit it)")
    else:
        n = stages.n_clips
        parts.append(f"decoding {stages.decoding:.1f} ({n} clips of {generation.clip_s:g} s at once)")
        parts.append(f"codes to sound {stages.sound:.1f} ({min(n, SOUND_BATCH)} clips)")
    return ", ".join(parts)


def _list_misfits(outlooks: Sequence[Outlook], n_gpus: float, card: Card) -> list[str]:
    """Return a warning per configuration that does not fit into its share of the card."""
    n_sharing = count_sharing(n_gpus)
    share = card.memory_gib / n_sharing
    lines: dict[str, None] = {}
    for outlook in outlooks:
        stages = outlook.prediction.stages
        if stages is None or not outlook.is_open or stages.peak_gib + CONTEXT_GIB <= share:
            continue
        train = outlook.trial.train
        is_off = train is not None and train.gradient_checkpointing is False
        found = {
            "encoding the dataset": (stages.encoding, "dataset.clip_s"),
            "training": (
                stages.training,
                f"train.batch_size{', or set train.gradient_checkpointing: auto' * is_off}",
            ),
            "decoding": (stages.decoding, "generation.batch_size"),
            "codes to sound": (stages.sound, "generation.batch_size"),
        }
        stage, (peak, mend) = max(found.items(), key=lambda item: item[1][0] or 0.0)
        where = f"{card.name} has {share:.1f} GiB"
        if n_sharing > 1:
            where = (
                f"resources.gpu {n_gpus:g} lets {n_sharing} trials share {card.name}, {share:.1f} GiB each"
            )
            mend += ", or raise resources.gpu"
        is_unset = stage in {"decoding", "codes to sound"} and outlook.trial.generation.batch_size is None
        lines[
            f"warning: {outlook.trial.configuration}: {stage} takes about {peak:.1f} GiB, and CUDA about "
            f"{CONTEXT_GIB:g}, but {where}; {'set' if is_unset else 'lower'} {mend}"
        ] = None
    return list(lines)
