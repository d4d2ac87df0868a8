"""Makes run folders with invented numbers (0.1 steps, round counts) through the records that stages write."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from lora_bench.artifacts import (
    AudioFormat,
    Excluded,
    LossPoint,
    Manifest,
    Score,
    Slice,
    Track,
    TrainResult,
    Unscored,
)
from lora_bench.slugs import prompt_slug
from lora_bench.store import to_jsonable

RATE_HZ = 16_000
PLAIN_PROMPTS = ("invented march", "invented waltz")
PROMPT_HTML = '<script>alert("x")</script> | pipe & `tick` *star* _under_ [a](b)\nsecond line $x$'
PROMPT_KOREAN = (
    "메이플스토리 배경 음악, 밝고 경쾌한 오케스트라와 재즈가 어우러진 마을 테마, 통통 튀는 피치카토"
)
PROMPT_LONG = ("very long invented prompt " * 80).strip()[:2000]


def write_json(path: Path, value: Any) -> None:
    """JSON as the store writes it, without waiting for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(to_jsonable(value), ensure_ascii=False), encoding="utf-8")


@dataclass
class FakeTrial:
    """One planned trial and what became of it."""

    name: str
    kind: str = "fine-tuned"
    seed: int | None = 0
    state: str | None = "done"
    reason: str | None = None
    stage: str | None = None
    rank: int = 4
    base: float = 0.5
    selection_base: float | None = None
    has_scores: bool = True
    unscored: tuple[Unscored, ...] = ()

    @property
    def id(self) -> str:
        return f"{self.name}-{(self.seed or 0):08x}"


def zero_shot() -> FakeTrial:
    return FakeTrial("zero-shot", kind="zero-shot", seed=None, base=0.9)


@dataclass
class FakeRun:
    """A run to be written; the defaults make a complete one."""

    trials: Sequence[FakeTrial] = field(default_factory=lambda: [zero_shot(), FakeTrial("r4-attention")])
    prompts: Sequence[str] = PLAIN_PROMPTS
    metrics: Sequence[str] = ("mfcc20",)
    name: str = "invented"
    trained: bool = True
    has_interval: bool = True
    bias: float | None = None
    contrasts: Sequence[dict[str, Any]] = ()
    guards: Sequence[dict[str, Any]] = ()
    n_wavs: int = 0
    n_references: int = 0

    def write(self, folder: Path) -> Path:
        """Write all files below `folder/<name>` and return that folder."""
        run = folder / self.name
        spec = self.spec()
        plans = [self.plan(trial) for trial in self.trials]
        write_json(run / "plan.json", {"name": self.name, "spec": spec, "trials": plans})
        write_json(
            run / "environment.json",
            {"python": "3.11.0", "cpu": "invented CPU", "packages": {"numpy": "1.26"}},
        )
        self._write_preparation(run)
        if self.contrasts:
            write_json(run / "contrasts.json", {"contrasts": self.contrasts})
        if self.guards:
            write_json(run / "guards.json", {"guards": self.guards})
        for index, trial in enumerate(self.trials):
            self._write_trial(run / "trials" / trial.id, trial, index)
        for index in range(self.n_references):
            write_tone(run / "reference_clips" / f"{8 + index:016x}-0.wav", 880.0 + 110.0 * index)
        return run

    def spec(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "name": self.name,
            "model": {"id": "pocket", "backend": "transformers", "revision": None, "dtype": "auto"},
            "dataset": {"builtin": "chiptune", "split": {"by": "track", "eval_frac": 0.2, "seed": 0}},
            "prompts": list(self.prompts),
            "generation": {
                "n_clips": 10,
                "clip_s": 1.0,
                "guidance": 3.0,
                "top_k": 250,
                "temperature": 1.0,
                "seed": 0,
            },
            "metrics": list(self.metrics),
            "report": {"title": None},
        }

    def plan(self, trial: FakeTrial) -> dict[str, Any]:
        lora = {"rank": trial.rank, "alpha": None, "targets": "attention", "dropout": 0.05}
        return {
            "id": trial.id,
            "name": trial.name,
            "kind": trial.kind,
            "train_seed": trial.seed,
            "lora": None if trial.kind == "zero-shot" else lora,
            "train": None if trial.kind == "zero-shot" else {"steps": 20},
            "prompts": list(self.prompts),
            "metrics": list(self.metrics),
        }

    def model(self) -> dict[str, Any]:
        return {
            "name": "pocket",
            "weights_hash": "a" * 64,
            "frame_rate_hz": 50.0,
            "n_codebooks": 4,
            "trained": self.trained,
        }

    def _write_preparation(self, run: Path) -> None:
        tracks = [
            Track(
                f"{i:016x}",
                f"song {i}.wav",
                Path("audio.npy"),
                "caption",
                "eval" if i >= 8 else "train",
                60.0,
            )
            for i in range(10)
        ]
        cuts = [Slice(track.id, track.split, 0, RATE_HZ, RATE_HZ, "caption") for track in tracks]
        excluded = (Excluded("bad|file.wav", "0 samples; export it again"),)
        manifest = Manifest(
            "c0ffee",
            "invented songs",
            run,
            AudioFormat(RATE_HZ, 1),
            10.0,
            tuple(tracks),
            excluded,
            tuple(cuts),
            "soxr-hq 1",
        )
        described = {
            "prepared_for": "k",
            "n_reference_clips": 20,
            "model": self.model(),
            "manifest": manifest,
        }
        write_json(run / "dataset.json", described)
        floors = [
            {"floor": floor, "score": Score(metric, None, value, 10, 20, 20)}
            for metric in self.metrics
            for floor, value in (("real-vs-real", 0.1), ("codec", 0.05))
        ]
        write_json(run / "floors.json", {"floors": floors, "unscored": []})

    def _write_trial(self, folder: Path, trial: FakeTrial, index: int) -> None:
        if trial.state is None:
            return
        state = {
            "state": trial.state,
            "stage": trial.stage,
            "reason": trial.reason,
            "wall_s": {"generate": 2.0, "score": 1.0},
        }
        write_json(folder / "state.json", state)
        write_json(folder / "trial.json", self.plan(trial))
        if trial.kind == "fine-tuned":
            curve = tuple(
                LossPoint(step, 4.0 - 0.1 * step, 4.2 - 0.1 * step, 1e-4, float(step))
                for step in range(0, 21, 5)
            )
            (folder / "adapter").mkdir(parents=True)
            result = TrainResult(
                folder / "adapter", 1000 * trial.rank, {"self_attention": 8}, curve, 12.5, 0.75
            )
            write_json(folder / "train.json", result)
        if trial.has_scores:
            sheet: dict[str, Any] = {"scores": self._scores(trial), "unscored": list(trial.unscored)}
            if trial.selection_base is not None:
                seen = dataclasses.replace(trial, base=trial.selection_base)
                sheet["selection"] = {"scores": self._scores(seen), "unscored": []}
            write_json(folder / "scores.json", sheet)
        for clip in range(self.n_wavs):
            for prompt in self.prompts:
                write_tone(
                    folder / "clips" / prompt_slug(prompt) / f"{clip:03d}.wav",
                    220.0 * (1 + index) + 55 * clip,
                )

    def _scores(self, trial: FakeTrial) -> list[dict[str, Any]]:
        absent = {(gap.metric, gap.prompt) for gap in trial.unscored}
        made: list[Score] = []
        for metric in self.metrics:
            for shift, prompt in enumerate((*self.prompts, None)):
                if (metric, prompt) in absent:
                    continue
                value = trial.base + 0.1 * (shift % 10)
                score = Score(
                    metric,
                    prompt,
                    value,
                    10,
                    20,
                    20,
                    provenance={"encoder": "mfcc", "resampler": "soxr-hq 1"},
                )
                if self.has_interval:
                    score = dataclasses.replace(score, se=0.02, ci_low=value - 0.04, ci_high=value + 0.04)
                if self.bias is not None:
                    score = dataclasses.replace(
                        score, corrected=value - self.bias, note="an invented caution"
                    )
                made.append(score)
        return [dataclasses.asdict(score) for score in made]


def contrast(
    trial: FakeTrial,
    metric: str,
    prompt: str | None,
    verdict: str | None,
    delta: float = -0.4,
    **changes: Any,
) -> dict[str, Any]:
    """A contrast with zero-shot as it is stored; without a verdict it is descriptive."""
    return {
        "metric": metric,
        "prompt": prompt,
        "configuration": trial.name,
        "primary": verdict is not None,
        "delta": delta,
        "se": 0.05,
        "ci_low": delta - 0.1,
        "ci_high": delta + 0.1,
        "p_value": 0.01,
        "verdict": verdict,
        "detectable": 0.14,
        "n_pairs": 10,
        "n_tracks": 5,
        "seeds": [{"trial": trial.id, "train_seed": trial.seed, "delta": delta}],
        **changes,
    }


def write_tone(path: Path, frequency_hz: float, duration_s: float = 1.0) -> None:
    """A wav with a steady tone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    time_s = np.arange(int(duration_s * RATE_HZ)) / RATE_HZ
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency_hz * time_s), RATE_HZ, subtype="PCM_16")
