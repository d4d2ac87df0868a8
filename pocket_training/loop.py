"""The loop of a training that can be stopped at any time and resumed with the same command."""

import argparse
import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import distributed

COUNTERS = ("step", "seen_s", "wall_s", "cpu_s")


class Training(Protocol):
    """Networks, optimizers and samplers at some step of the training."""

    folder: Path
    step: int
    seen_s: float
    wall_s: float
    cpu_s: float

    def take_step(self) -> Any:
        """Learn from one batch; return its losses."""
        ...

    def save(self) -> None:
        """Keep everything that the next step depends on."""
        ...


T = TypeVar("T", bound=Training)


def run_training(training: T, args: argparse.Namespace, check: Callable[[T, list[Any]], dict[str, Any]]) -> T:
    """Train until `--audio-s` are seen or SIGTERM arrives.

    Args:
        training: fresh or resumed.
        args: with `audio_s`, `save_minutes` and `check_every_s`.
        check: returns held-out figures, given the losses of the steps since the last check; they are added as a line
            to `checks.jsonl` in the training's folder.
    """
    stopped: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    wall_s, cpu_s = training.wall_s - time.monotonic(), training.cpu_s - time.process_time()
    saved_s, checked_s = training.wall_s, training.seen_s
    recent: list[Any] = []
    while training.seen_s < args.audio_s and not _is_any(bool(stopped)):
        recent.append(training.take_step())
        training.wall_s, training.cpu_s = wall_s + time.monotonic(), cpu_s + time.process_time()
        if training.wall_s - saved_s > args.save_minutes * 60:
            saved_s = training.wall_s
            _save(training)
        is_due = training.seen_s // args.check_every_s > checked_s // args.check_every_s
        if is_due or training.seen_s >= args.audio_s:
            checked_s = training.seen_s
            if is_first():
                _write_check(training, check(training, recent))
            recent = []
    _save(training)
    signal.signal(signal.SIGTERM, before)
    return training


def is_first() -> bool:
    """Return whether this process measures and saves: of several that `torchrun` started, one does."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def _is_any(value: bool) -> bool:
    """Return whether the value is true in any process, so that all stop at the same step."""
    flag = torch.tensor(float(value))
    if distributed.is_initialized():
        distributed.all_reduce(flag)
    return bool(flag)


def _save(training: Training) -> None:
    if is_first():
        training.save()


def _write_check(training: Training, figures: dict[str, Any]) -> None:
    facts = {
        "wall_h": round(training.wall_s / 3600, 3), "cpu_h": round(training.cpu_s / 3600, 3),
        "audio_s": round(training.seen_s), "step": training.step, **figures,
    }  # fmt: skip
    with (training.folder / "checks.jsonl").open("a") as log:
        print(json.dumps(facts), file=log)
    print(json.dumps(facts), flush=True)


def save_state(training: Training, state: dict[str, Any]) -> None:
    """Write `training.pt` whole or not at all, with the counters."""
    fresh = training.folder / "training.pt.new"
    torch.save(state | {name: getattr(training, name) for name in COUNTERS}, fresh)
    fresh.replace(training.folder / "training.pt")


def load_state(training: Training, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read `training.pt`, and set the counters."""
    state: dict[str, Any] = torch.load(
        training.folder / "training.pt", map_location=device, weights_only=True
    )
    for name in COUNTERS:
        setattr(training, name, state[name])
    return state


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a command line that shows a module's docstring as it is."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def add_training_options(parser: argparse.ArgumentParser, run: str, audio_s: float) -> None:
    """Add the options that all trainings share."""
    add = parser.add_argument
    add("--work", type=Path, required=True, help="working folder of the earlier stages")
    add("--run", default=run, help="folder of this training in WORK")
    add("--audio-s", type=float, default=audio_s, help="audio-seconds in all")
    add("--save-minutes", type=float, default=8.0, help="between two savings of all that resuming needs")
    add(
        "--check-every-s", type=int, default=10_000, help="audio-seconds between two checks on held-out music"
    )
    add("--threads", type=int, default=2)
    add("--seed", type=int, default=0)
