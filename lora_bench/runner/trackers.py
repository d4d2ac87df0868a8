"""Curves and scores to TensorBoard, Weights & Biases or MLflow while a run goes on, where the spec asks for it.

Trials run in other processes, perhaps on other machines, so what is tracked is read from their files: the loss
about once a second while a trial trains, its whole curve and its scores when it is done.  Nothing is sent
anywhere unless `report.trackers` names the service.
"""

from __future__ import annotations

import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lora_bench.errors import ResourceError
from lora_bench.planning.run_folder import RunFolder
from lora_bench.progress import Progress
from lora_bench.results.reading import read_if_valid
from lora_bench.results.run_files import ScoresFile, TrainFile
from lora_bench.runner.jobs.state import TrialView, view_trial
from lora_bench.slugs import series_slugs

LOOK_EVERY_S = 1.0
PROJECT = "lora-bench"
_LOSS = re.compile(r"loss (-?\d+(?:\.\d+)?)")


class Tracker(ABC):
    """Takes the figures of one run's trials; a trial is opened when its first figure comes.

    Args:
        folder: of the run.
        settings: of LoRA and training by trial id, for services that keep them.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._folder, self._settings = folder, settings
        self._opened: dict[str, Any] = {}

    def log(self, trial_id: str, name: str, value: float, step: int) -> None:
        """Take one figure."""
        if trial_id not in self._opened:
            self._opened[trial_id] = self._open(trial_id)
        self._write(self._opened[trial_id], name, value, step)

    def close(self) -> None:
        """Let every trial be written out."""
        for opened in self._opened.values():
            self._end(opened)

    @abstractmethod
    def _open(self, trial_id: str) -> Any: ...

    @abstractmethod
    def _write(self, opened: Any, name: str, value: float, step: int) -> None: ...

    @abstractmethod
    def _end(self, opened: Any) -> None: ...


class TensorBoardTracker(Tracker):
    """Event files below `<run>/tensorboard/<trial>/`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from tensorboardX import SummaryWriter

        super().__init__(folder, settings)
        self._make = SummaryWriter

    def _open(self, trial_id: str) -> Any:
        return self._make(str(RunFolder(self._folder).tensorboard / trial_id), flush_secs=5)

    def _write(self, opened: Any, name: str, value: float, step: int) -> None:
        opened.add_scalar(name, value, step)

    def _end(self, opened: Any) -> None:
        opened.close()


class WandbTracker(Tracker):
    """One W&B run per trial, grouped by the run's name; address, mode and key are W&B's own settings."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        import wandb

        super().__init__(folder, settings)
        self._wandb: Any = wandb

    def _open(self, trial_id: str) -> Any:
        run = self._wandb.init(
            project=PROJECT, group=self._folder.name, name=trial_id, dir=str(self._folder),
            config=dict(self._settings.get(trial_id) or {}), reinit="create_new",
        )  # fmt: skip
        run.define_metric("*", step_metric="training step")
        return run

    def _write(self, opened: Any, name: str, value: float, step: int) -> None:
        opened.log({name: value, "training step": step})

    def _end(self, opened: Any) -> None:
        opened.finish()


class MlflowTracker(Tracker):
    """One MLflow run per trial in the experiment `lora-bench`; the address is `MLFLOW_TRACKING_URI`."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

        super().__init__(folder, settings)
        self._client: Any = MlflowClient()
        found = self._client.get_experiment_by_name(PROJECT)
        self._experiment = found.experiment_id if found else self._client.create_experiment(PROJECT)

    def _open(self, trial_id: str) -> Any:
        run = self._client.create_run(self._experiment, run_name=trial_id, tags={"run": self._folder.name})
        for key, setting in (self._settings.get(trial_id) or {}).items():
            self._client.log_param(run.info.run_id, key, setting)
        return run.info.run_id

    def _write(self, opened: Any, name: str, value: float, step: int) -> None:
        self._client.log_metric(opened, name.replace("@", " "), value, step=step)  # MLflow refuses the sign

    def _end(self, opened: Any) -> None:
        self._client.set_terminated(opened)


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoardTracker,
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
}
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb", "mlflow": "mlflow"}


def open_trackers(names: Sequence[str], run_folder: Path, settings: Mapping[str, Any]) -> list[Tracker]:
    """Trackers by name.

    Raises:
        ResourceError: a package is not installed, or a service cannot be reached.
    """
    opened: list[Tracker] = []
    for name in names:
        try:
            opened.append(TRACKERS[name](run_folder, settings))
        except ImportError as error:
            raise ResourceError(
                f"report.trackers: {name} needs the package {PACKAGES[name]}, which is not installed; install it "
                f"(`pip install {PACKAGES[name]}`), or remove {name} from report.trackers"
            ) from error
        except Exception as error:  # whatever a service's client raises
            raise ResourceError(
                f"report.trackers: {name} cannot start ({error}); check its own settings, or remove it from "
                "report.trackers"
            ) from error
    return opened


@contextmanager
def track_trials(
    names: Sequence[str],
    run_folder: Path,
    settings: Mapping[str, Any],
    progress: Progress,
) -> Iterator[None]:
    """While the block runs, pass on what the files of the trials in `settings` tell; nothing happens without names.

    A tracker that fails is left out with a line to `progress`; the run goes on.

    Raises:
        ResourceError: a tracker cannot be had.
    """
    if not names:
        yield
        return
    feed = TrialFeed(open_trackers(names, run_folder, settings), run_folder, list(settings), progress)
    over = threading.Event()

    def watch() -> None:
        while not over.wait(LOOK_EVERY_S):
            feed.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        feed.look()
        feed.close()


class TrialFeed:
    """Reads trials' files and tells trackers what is new."""

    def __init__(
        self, trackers: Sequence[Tracker], run_folder: Path, trial_ids: Sequence[str], progress: Progress
    ) -> None:
        self._trackers = list(trackers)
        self._run = RunFolder(run_folder)
        self._progress = progress
        self._waiting = list(trial_ids)
        self._steps: dict[str, int] = {}
        self._stale = {trial_id for trial_id in trial_ids if self._view(trial_id).state == "done"}

    def _view(self, trial_id: str) -> TrialView:
        return view_trial(trial_id, self._run.trial(trial_id).path)

    def look(self) -> None:
        """Everything that is new since the last look."""
        for trial_id in list(self._waiting):
            view = self._view(trial_id)
            if view.state != "done":
                self._stale.discard(trial_id)
            if view.state == "running" and view.stage == "train" and view.done > self._steps.get(trial_id, 0):
                self._steps[trial_id] = view.done
                if found := _LOSS.search(view.note):
                    self._log(trial_id, "live/loss", float(found[1]), view.done)
            if view.state == "done" and trial_id not in self._stale:
                self._waiting.remove(trial_id)
                self._log_finished(trial_id)

    def _log_finished(self, trial_id: str) -> None:
        """The whole curve, and the scores at its last step."""
        folder = self._run.trial(trial_id)
        last = 0
        for point in (read_if_valid(folder.train, TrainFile) or TrainFile()).curve:
            last = point.step
            figures = {"loss/training": point.train_loss, "loss/held-out": point.eval_loss}
            for name, figure in (figures | {"train/learning rate": point.lr}).items():
                if figure is not None:
                    self._log(trial_id, name, figure, last)
        scores = (read_if_valid(folder.scores, ScoresFile) or ScoresFile()).usable
        slugs = series_slugs(list({score.prompt for score in scores if score.prompt is not None}))
        for score in scores:
            prompt = "all prompts" if score.prompt is None else slugs[score.prompt]
            self._log(trial_id, f"score {score.metric}/{prompt}", score.best_value, last)

    def _log(self, trial_id: str, name: str, value: float, step: int) -> None:
        for tracker in list(self._trackers):
            try:
                tracker.log(trial_id, name, value, step)
            except Exception as error:  # noqa: BLE001 (a service that fails must not end the run)
                self._trackers.remove(tracker)
                self._progress.log(f"{type(tracker).__name__} failed and is disabled: {error}")

    def close(self) -> None:
        """Let every tracker write out what it has."""
        for tracker in self._trackers:
            try:
                tracker.close()
            except Exception as error:  # noqa: BLE001 (the results are in the run's files all the same)
                self._progress.log(f"{type(tracker).__name__} could not be closed: {error}")
