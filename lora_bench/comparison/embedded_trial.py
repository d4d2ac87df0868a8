"""A trial on disk whose clips were embedded."""

from __future__ import annotations

from dataclasses import dataclass, field

from lora_bench.artifacts import Embeddings
from lora_bench.errors import UnscoredError
from lora_bench.metrics import Metric
from lora_bench.metrics.names import CODEC_MATCHED
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.results.reading import read_record
from lora_bench.results.run_files import ReferencePointer
from lora_bench.slugs import prompt_slugs
from lora_bench.stages.embed import load_embeddings


@dataclass(frozen=True)
class EmbeddedTrial:
    """A trial whose clips were embedded.

    Attributes:
        folder: the trial's folder; its name is the trial's id.
        prompts: in the order of the trial.
        is_external: whether its clips are those of another system.
    """

    folder: TrialFolder
    prompts: tuple[str, ...]
    is_external: bool = field(default=False, kw_only=True)

    @property
    def id(self) -> str:
        """The trial's id."""
        return self.folder.path.name

    def name_clips(self, metric: Metric) -> str:
        """Return which embeddings of the clips a metric compares.

        The model's clips are decoded from codes as they are; those of another system pass through the codec for a
        codec-matched metric, as the references do.
        """
        is_recoded = self.is_external and metric.codec_matched
        return f"{metric.encoder}{CODEC_MATCHED}" if is_recoded else metric.encoder

    def load_clips(self, encoder: str, prompt: str) -> Embeddings:
        """Load the clips of one prompt; `encoder` as `name_clips` says.

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
            pointer = folder.coded_reference if metric.codec_matched else folder.reference
            is_named = pointer.is_file()
            plain = f"{metric.encoder}{CODEC_MATCHED if metric.codec_matched else ''}.npz"
            name = read_record(pointer, ReferencePointer).file if is_named else plain
            path = self.folder.run.reference_embeddings / name
        if not path.is_file():
            raise UnscoredError(f"{path} is not there, so there is no comparison")
        return load_embeddings(path)
