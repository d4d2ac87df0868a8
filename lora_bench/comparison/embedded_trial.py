"""Paired tests of two trials on disk, from the embeddings of their clips."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from dataclasses import dataclass

from lora_bench.artifacts import Embeddings
from lora_bench.comparison.paired_test import compare_paired, compare_pooled
from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric
from lora_bench.metrics.clusters import take_clips
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.results.reading import read_record
from lora_bench.results.records import Comparison
from lora_bench.results.run_files import ReferencePointer
from lora_bench.slugs import prompt_slugs
from lora_bench.stages.embed import load_embeddings


@dataclass(frozen=True)
class EmbeddedTrial:
    """A trial whose clips were embedded.

    Attributes:
        folder: the trial's folder; its name is the trial's id.
        prompts: in the order of the trial.
    """

    folder: TrialFolder
    prompts: tuple[str, ...]

    @property
    def id(self) -> str:
        """The trial's id."""
        return self.folder.path.name

    def load_clips(self, encoder: str, prompt: str) -> Embeddings:
        """Load the clips of one prompt.

        Raises:
            UnscoredError: they were not embedded.
        """
        path = self.folder.embeddings(encoder).prompt(prompt_slugs(self.prompts)[prompt])
        if not path.is_file():
            raise UnscoredError(f"{path} is not there, so the clips cannot be compared in pairs")
        return load_embeddings(path)

    def load_references(self, metric: Metric) -> Embeddings:
        """Load what the clips were scored against: recordings, or the prompts' texts in their order.

        Raises:
            UnscoredError: the trial was not scored.
        """
        folder = self.folder.embeddings(metric.encoder)
        if metric.distance == "text":
            path = folder.texts
        else:
            is_named = folder.reference.is_file()
            name = (
                read_record(folder.reference, ReferencePointer).file if is_named else f"{metric.encoder}.npz"
            )
            path = self.folder.run.reference_embeddings / name
        if not path.is_file():
            raise UnscoredError(f"{path} is not there, so there is no paired test")
        return load_embeddings(path)


def compare_trials_on(
    metric: Metric,
    tuned: EmbeddedTrial,
    base: EmbeddedTrial,
    references: Embeddings,
    *,
    skip_unpaired: bool = False,
) -> list[Comparison]:
    """Compare every prompt that both have, and these together if neither has others.

    Args:
        metric: what is compared.
        tuned: the trial that is judged.
        base: the trial that it is compared with.
        references: recordings, or the texts of the base's prompts in their order.
        skip_unpaired: leave out a prompt with too few pairs.

    Raises:
        UnscoredError: clips are absent, or a prompt has too few pairs.
    """
    prompts = tuple(prompt for prompt in base.prompts if prompt in tuned.prompts)
    ours, theirs = ([side.load_clips(metric.encoder, prompt) for prompt in prompts] for side in (base, tuned))
    names = (tuned.id, base.id)
    found: list[Comparison] = []
    for prompt, one, another in zip(prompts, ours, theirs, strict=True):
        is_text = metric.distance == "text"
        other = take_clips(references, [base.prompts.index(prompt)]) if is_text else references
        with suppress(UnscoredError) if skip_unpaired else nullcontext():
            found.append(compare_paired(metric, one, another, other, prompt=prompt, names=names))
    if found and len(prompts) == len(base.prompts) == len(tuned.prompts):
        with suppress(UnscoredError) if skip_unpaired else nullcontext():
            found.append(compare_pooled(metric, ours, theirs, references, names=names))
    return found
