"""Adapters of earlier steps: those of shorter runs, of resumed runs, and the best one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from support.tiny_data import load_tiny, make_manifest
from support.training import StopAt, assert_same_adapter, without_times

from lora_bench.artifacts import LossPoint, TrainResult
from lora_bench.errors import TrainingError
from lora_bench.models.token_set import TokenSet
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.planning.run_folder import TrialFolder
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import LoraSpec, TrainSpec
from lora_bench.stages.tokens import encode_dataset
from lora_bench.stages.train import KeptAdapters, adapter_key, train_adapter
from lora_bench.stages.train.kept import Keep, find_best
from lora_bench.store import Store

LORA = LoraSpec(rank=2, targets="attention", dropout=0.3)
TRAIN = TrainSpec(
    steps=8, lr=5e-3, batch_size=2, eval_every=2, checkpoint_every=1, schedule="constant", warmup_frac=0.0
)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TransformersMusicGen:
    return load_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def tokens(model: TransformersMusicGen, tmp_path_factory: pytest.TempPathFactory) -> TokenSet:
    place = tmp_path_factory.mktemp("tokens")
    return encode_dataset(make_manifest(place / "data"), model, Store(place / "cache"), SilentProgress())


@pytest.fixture(scope="module")
def whole(model: TransformersMusicGen, tokens: TokenSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted training that keeps steps 3 and 5, and the best one."""
    place = tmp_path_factory.mktemp("whole")
    train(model, tokens, place, keep=(3, 5, "best"))
    return place


def train(
    model: TransformersMusicGen,
    tokens: TokenSet,
    place: Path,
    spec: TrainSpec = TRAIN,
    *,
    keep: Sequence[Keep] = (),
    progress: SilentProgress | None = None,
) -> TrainResult:
    return train_adapter(tokens, model, LORA, spec, 0, place, progress or SilentProgress(), keep=keep)


def read(folder: Path) -> bytes:
    return (folder / WEIGHTS).read_bytes()


@pytest.mark.parametrize("step", [3, 5])
def test_a_kept_step_equals_a_run_of_so_many_steps_under_a_constant_schedule(
    model: TransformersMusicGen, tokens: TokenSet, whole: Path, tmp_path: Path, step: int
) -> None:
    short = train(model, tokens, tmp_path, TRAIN.model_copy(update={"steps": step}))
    kept = TrialFolder(whole).kept / str(step)
    assert read(kept) == read(short.adapter)
    found = KeptAdapters(
        TrialFolder(whole), adapter_key(tokens, model, LORA, TRAIN, 0), TRAIN, (3, 5, "best")
    ).find(step, ())
    assert found is not None
    assert found.step == step
    assert [(point.step, point.eval_loss) for point in found.curve if point.eval_loss is not None][-1] == (
        step,
        short.curve[-1].eval_loss,
    )


def test_under_a_schedule_that_depends_on_the_number_of_steps_it_does_not(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    cosine = TRAIN.model_copy(update={"schedule": "cosine"})
    train(model, tokens, tmp_path / "long", cosine, keep=(3,))
    short = train(model, tokens, tmp_path / "short", cosine.model_copy(update={"steps": 3}))
    assert read(TrialFolder(tmp_path / "long").kept / "3") != read(short.adapter)


def test_keeping_steps_leaves_the_last_adapter_and_its_key_as_they_are(
    model: TransformersMusicGen, tokens: TokenSet, whole: Path, tmp_path: Path
) -> None:
    train(model, tokens, tmp_path)
    assert_same_adapter(whole, tmp_path)
    regular = [point["eval_loss"] for point in without_times(whole) if point["step"] in {0, 2, 4, 6, 8}]
    assert regular == [
        point["eval_loss"] for point in without_times(tmp_path) if point["eval_loss"] is not None
    ]
    keys = {
        adapter_key(tokens, model, LORA, TRAIN.model_copy(update={"keep": keep}), 0)
        for keep in (None, 3, "best")
    }
    assert len(keys) == 1


@pytest.mark.parametrize("stop_after", [2, 4, 6, 8])
def test_a_resumed_trajectory_equals_an_uninterrupted_one(
    model: TransformersMusicGen, tokens: TokenSet, whole: Path, tmp_path: Path, stop_after: int
) -> None:
    keep: Sequence[Keep] = (3, 5, "best")
    with pytest.raises(KeyboardInterrupt):
        train(model, tokens, tmp_path, keep=keep, progress=StopAt(stop_after, KeyboardInterrupt()))
    train(model, tokens, tmp_path, keep=keep)
    assert_same_adapter(whole, tmp_path)
    one, other = TrialFolder(whole).kept, TrialFolder(tmp_path).kept
    assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())
    for path in one.iterdir():
        assert read(path) == read(other / path.name)
    assert without_times(whole) == without_times(tmp_path)


def test_a_step_that_an_earlier_attempt_did_not_keep_is_trained_for(
    model: TransformersMusicGen, tokens: TokenSet, whole: Path, tmp_path: Path
) -> None:
    train(model, tokens, tmp_path, keep=(5,))
    train(model, tokens, tmp_path, keep=(3, 5))  # finished, but for step 3
    assert read(TrialFolder(tmp_path).kept / "3") == read(TrialFolder(whole).kept / "3")
    with pytest.raises(KeyboardInterrupt):
        train(model, tokens, tmp_path / "cut", progress=StopAt(5, KeyboardInterrupt()))
    logged = Logged()
    train(model, tokens, tmp_path / "cut", keep=(3,), progress=logged)
    assert logged.lines == ["the adapter of step 3 was not kept; training begins at step 0"]
    assert read(TrialFolder(tmp_path / "cut").kept / "3") == read(TrialFolder(whole).kept / "3")


def test_the_best_step_has_the_lowest_held_out_loss_of_the_regular_measurements(
    model: TransformersMusicGen, tokens: TokenSet, whole: Path
) -> None:
    key = adapter_key(tokens, model, LORA, TRAIN, 0)
    kept = KeptAdapters(TrialFolder(whole), key, TRAIN, (3, 5, "best"))
    end = kept.find(None, ())
    assert end is not None
    losses = {point.step: point.eval_loss for point in end.curve if point.step in {2, 4, 6, 8}}
    best = min(losses, key=lambda step: losses[step] or 0.0)
    found = kept.find("best", end.curve)
    assert found is not None
    assert (found.step, found.curve) == (best, end.curve)
    others = [path.name for path in TrialFolder(whole).kept.glob("best-*")]
    assert others == ([f"best-{best}"] if best != TRAIN.steps else [])


def test_best_takes_the_first_of_equal_losses_and_no_step_that_was_measured_for_another_reason() -> None:
    losses = {0: 1.0, 2: 5.0, 3: 2.0, 4: 3.0, 6: 3.0, 8: 4.0}
    curve = [LossPoint(step, None, loss, 0.0, 0.0) for step, loss in losses.items()]
    assert find_best(curve, TRAIN) == 4
    assert find_best([replace(point, eval_loss=None) for point in curve], TRAIN) is None


def test_best_needs_a_held_out_side(model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path) -> None:
    only_train = replace(tokens, splits=tuple("train" for _ in tokens.splits))
    with pytest.raises(TrainingError, match=r"train\.keep is `best`, and no track is held out"):
        train(model, only_train, tmp_path, keep=("best",))


def test_kinds_that_change_the_base_weights_are_kept_without_a_change_of_course(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    lora = LoraSpec(kind="pissa", rank=2, targets="attention", dropout=0.0)
    places = [tmp_path / "kept", tmp_path / "plain", tmp_path / "short"]
    for place, spec, keep in zip(
        places, (TRAIN, TRAIN, TRAIN.model_copy(update={"steps": 3})), ((3,), (), ()), strict=True
    ):
        train_adapter(tokens, model, lora, spec, 0, place, SilentProgress(), keep=keep)
    assert_same_adapter(places[0], places[1])
    assert read(TrialFolder(places[0]).kept / "3") == read(TrialFolder(places[2]).adapter)


class Logged(SilentProgress):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def log(self, message: str) -> None:
        self.lines.append(message)
