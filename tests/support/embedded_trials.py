"""Trials on disk that have nothing but embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.contrasts import Group, Trained
from lora_bench.comparison.embedded_trial import EmbeddedTrial
from lora_bench.planning.run_folder import RunFolder
from lora_bench.slugs import prompt_slugs
from lora_bench.stages.embed import save_embeddings
from lora_bench.store import write_json


def write_trial(
    run: Path,
    name: str,
    sets: Mapping[str, Embeddings],
    reference: Embeddings,
    texts: Embeddings | None = None,
    encoder: str = "mfcc20",
) -> EmbeddedTrial:
    """Write the clips' embeddings by prompt, and the references; return the trial."""
    folder = RunFolder(run).trial(name)
    place = folder.embeddings(encoder)
    for prompt, slug in prompt_slugs(tuple(sets)).items():
        save_embeddings(sets[prompt], place.prompt(slug))
    shared = RunFolder(run).reference_embeddings / f"{name}.npz"
    save_embeddings(reference, shared)
    write_json(place.reference, {"file": shared.name})
    if texts is not None:
        save_embeddings(texts, place.texts)
    return EmbeddedTrial(folder, tuple(sets))


def make_group(
    name: str, trials: list[EmbeddedTrial], base: EmbeddedTrial, margins: Mapping[str, float] | None = None
) -> Group:
    """Return a configuration against one base model; its trials are training seeds."""
    trainings = tuple(Trained(trial, base, seed) for seed, trial in enumerate(trials))
    return Group(name, "zero-shot", "source", trainings, margins or {})
