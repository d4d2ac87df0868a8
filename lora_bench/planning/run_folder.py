"""Names and paths of the files of a run: no other module spells them.

    run = RunFolder(Path("runs/quickstart"))
    run.plan                          # runs/quickstart/plan.json
    run.trial(trial_id).scores        # runs/quickstart/trials/<id>/scores.json
    RunFolder.plan                    # plan.json

An attribute is the path of a file on a folder, and its name on the class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import overload

from lora_bench.store import CACHE, LOCK

__all__ = [
    "CACHE",
    "EmbeddingFolder",
    "ReportFolder",
    "RunFolder",
    "SourceFolder",
    "TrialFolder",
]


@dataclass(frozen=True)
class Named:
    """A file or folder with a fixed name: its path on an instance, its name on the class."""

    name: str

    @overload
    def __get__(self, folder: None, kind: type) -> str: ...
    @overload
    def __get__(self, folder: Folder, kind: type) -> Path: ...
    def __get__(self, folder: Folder | None, kind: type) -> str | Path:
        return self.name if folder is None else folder.path / self.name


@dataclass(frozen=True)
class Folder:
    """A folder whose files have fixed names."""

    path: Path


@dataclass(frozen=True)
class EmbeddingFolder(Folder):
    """What one encoder made of a trial: `trials/<id>/embeddings/<encoder>/`."""

    texts = Named("texts.npz")
    reference = Named("reference.json")
    """Name of the file in `RunFolder.reference_embeddings`."""
    coded_reference = Named("reference_codec.json")
    """The same for the references after the codec, where a metric is codec-matched."""

    def prompt(self, slug: str) -> Path:
        """Return the file of the clips of one prompt."""
        return self.path / f"{slug}.npz"


@dataclass(frozen=True)
class TrialFolder(Folder):
    """The files of one trial: `trials/<id>/`."""

    plan = Named("trial.json")
    state = Named("state.json")
    train = Named("train.json")
    scores = Named("scores.json")
    guards = Named("guards.json")
    rungs = Named("rungs.json")
    """What early stopping measured and decided."""
    adapter = Named("adapter")
    existing_adapter = Named("existing_adapter.json")
    """What the files of an adapter say that was not trained here."""
    checkpoint = Named("checkpoint")
    checkpoint_state = Named("checkpoint/state.safetensors")
    kept = Named("kept")
    """Adapters of earlier steps, a folder per step."""
    clips = Named("clips")
    """A folder per prompt."""
    clips_key = Named("clips/key")
    """Identity of the weights and settings that the clips were made with."""
    clips_prompts = Named("clips/prompts.json")
    """Prompts by folder."""
    codes = Named("codes")
    """A folder per prompt, as `clips`."""
    external = Named("external.json")
    """Where the clips of another system come from."""
    external_raw = Named("external")
    """What a command has written and was not taken over yet, with its request and its output."""
    error = Named("error.txt")
    log = Named("log.txt")
    progress = Named("progress.json")
    """The step under way."""
    stages = Named("stages.json")
    """Seconds per stage of the attempt under way."""
    refused = Named("refused.txt")
    """Why a worker did not begin."""
    lock = Named(LOCK)
    cache_uses = Named("cache.txt")
    """Entries of the cache that the trial needs."""

    def embeddings(self, encoder: str) -> EmbeddingFolder:
        """Return the folder of one encoder's embeddings."""
        return EmbeddingFolder(self.path / "embeddings" / encoder)

    @property
    def run(self) -> RunFolder:
        """The run that the trial belongs to."""
        return RunFolder(self.path.parents[1])

    @property
    def is_trained(self) -> bool:
        """Whether the trial has an adapter, and the record of its training."""
        return self.train.is_file() and self.adapter.is_dir()

    @property
    def is_scored(self) -> bool:
        """Whether the trial has scores and guards."""
        return self.scores.is_file() and self.guards.is_file()


@dataclass(frozen=True)
class SourceFolder(Folder):
    """The files of one source: the run's folder for the first, `data/<name>-<hash8>/` for the others."""

    dataset = Named("dataset.json")
    floors = Named("floors.json")
    reference_clips = Named("reference_clips")
    coded_reference_clips = Named("coded_reference_clips")
    """The same excerpts after the codec."""
    cache_uses = Named("cache.txt")
    """Entries of the cache that the source needs."""


@dataclass(frozen=True)
class RunFolder(Folder):
    """The files of one run."""

    plan = Named("plan.json")
    environment = Named("environment.json")
    hub_datasets = Named("hub_datasets.json")
    """Commits of the datasets on the hub, by the name in the spec."""
    contrasts = Named("contrasts.json")
    choice = Named("choice.json")
    """The choice of the best configuration, repeated on halves of the tracks."""
    tuning = Named("tuning.json")
    """What was tried of each configuration before the comparison, and chosen."""
    calibration = Named("calibration.json")
    """How often intervals and verdicts of this design are right."""
    guards = Named("guards.json")
    """Guards compared over the trials; each trial has its own file of this name."""
    results = Named("results.json")
    results_csv = Named("results.csv")
    study = Named("study.json")
    listening = Named("listening.json")
    """What raters preferred."""
    listening_key = Named("listening_key.json")
    """The pairs behind the opaque ids of listening pages."""
    listening_page = Named("listening.html")
    trials = Named("trials")
    sources = Named("data")
    """Folders of all sources but the first."""
    reference_embeddings = Named("reference_embeddings")
    tensorboard = Named("tensorboard")
    lock = Named(LOCK)
    holder = Named(".holder")
    """The process that works on the run."""
    node_probe = Named(".node-probe")
    """Shows whether a node of a cluster sees the folder."""

    def trial(self, trial_id: str) -> TrialFolder:
        """Return the folder of one trial."""
        return TrialFolder(self.trials / trial_id)

    def list_trials(self) -> list[TrialFolder]:
        """Return the trials that have a folder, by name; drafts of killed processes are left out."""
        return [TrialFolder(path) for path in _list_folders(self.trials)]

    def source(self, folder: Path) -> SourceFolder:
        """Return the folder of one source by its path in the run (`Source.folder`)."""
        return SourceFolder(self.path / folder)

    def list_sources(self) -> list[SourceFolder]:
        """Return the sources that have a folder, the run's own first."""
        return [SourceFolder(self.path), *(SourceFolder(path) for path in _list_folders(self.sources))]

    @property
    def is_run(self) -> bool:
        """Whether a plan or results of a run are here."""
        return self.plan.is_file() or self.results.is_file()


@dataclass(frozen=True)
class ReportFolder(Folder):
    """The files of one report."""

    page = Named("report.html")
    markdown = Named("report.md")
    details = Named("details.md")
    results = Named("results.json")
    results_csv = Named("results.csv")
    results_parquet = Named("results.parquet")


def _list_folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*/") if not path.name.startswith("."))
