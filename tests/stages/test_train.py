from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file
from support.tiny_data import Recorder, load_tiny, make_manifest
from support.training import ADAPTER_FILES, StopAt, assert_same_adapter, without_times
from transformers import MusicgenForConditionalGeneration

from lora_bench.errors import (
    ModelError,
    NoModulesMatchedError,
    OutOfMemoryError,
    ResourceError,
    StoppedEarlyError,
    TrainingError,
)
from lora_bench.models import compiled_training as compiled_steps
from lora_bench.models import load_model
from lora_bench.models.device import has_fast_bfloat16
from lora_bench.models.token_set import TokenSet
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import LoraSpec, ModelSpec, TrainSpec
from lora_bench.stages.tokens import encode_dataset
from lora_bench.stages.train import train_adapter
from lora_bench.stages.train.checkpoint import TrainState, load_checkpoint, save_checkpoint
from lora_bench.stages.train.schedule import drop_captions
from lora_bench.store import Store

LORA = LoraSpec(rank=2, targets="attention", dropout=0.3)
TRAIN = TrainSpec(
    steps=8,
    lr=5e-3,
    batch_size=2,
    grad_accumulation=2,
    caption_dropout=0.5,
    weight_decay=0.01,
    eval_every=3,
    checkpoint_every=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


@pytest.fixture(scope="module")
def model(folder: Path) -> TransformersMusicGen:
    return load_tiny(folder)


@pytest.fixture(scope="module")
def tokens(model: TransformersMusicGen, tmp_path_factory: pytest.TempPathFactory) -> TokenSet:
    place = tmp_path_factory.mktemp("tokens")
    return encode_dataset(make_manifest(place / "data"), model, Store(place / "cache"), SilentProgress())


@pytest.fixture(scope="module")
def reference(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An uninterrupted run."""
    place = tmp_path_factory.mktemp("whole")
    train_adapter(tokens, model, LORA, TRAIN, 0, place, SilentProgress())
    return place


def test_training_lowers_the_loss_and_records_first_and_last_step(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    progress = Recorder()
    train = TrainSpec(steps=30, lr=1e-2, batch_size=4, eval_every=10, caption_dropout=0.0)
    result = train_adapter(tokens, model, LoraSpec(rank=8, targets="all"), train, 0, tmp_path, progress)
    assert progress.stages == [("train", 30)]
    assert progress.done == 30
    assert [point.step for point in result.curve if point.eval_loss is not None] == [0, 10, 20, 30]
    assert [point.step for point in result.curve] == list(range(31))
    first, last = result.curve[1], result.curve[-1]
    assert first.train_loss is not None
    assert last.train_loss is not None
    assert last.train_loss < first.train_loss - 0.3
    assert result.curve[0].train_loss is None
    assert result.matched_modules == {
        "self_attention": 8, "cross_attention": 8, "ffn": 4, "heads": 4, "conditioning": 1,
    }  # fmt: skip
    assert result.trainable_params == sum(p.numel() for p in model.adapter_parameters().values())
    assert result.wall_s > 0
    assert 0 < result.peak_memory_gib < 100


def test_first_held_out_loss_is_the_base_models(
    model: TransformersMusicGen, tokens: TokenSet, reference: Path
) -> None:
    model.remove_adapter()
    codes, valid, states = tokens.take(tokens.find_split("eval"))
    with torch.no_grad():
        expected = float(model.training_loss(codes, valid, states))
    assert without_times(reference)[0]["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_held_out_slices_are_never_trained_on(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[int] = set()
    original = TokenSet.take

    def record(self: TokenSet, rows: Sequence[int]) -> object:
        if torch.is_grad_enabled():
            seen.update(int(row) for row in rows)
        return original(self, rows)

    monkeypatch.setattr(TokenSet, "take", record)
    train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, SilentProgress())
    assert seen == set(tokens.find_split("train").tolist())


def test_training_needs_neither_text_encoder_nor_codec(
    model: TransformersMusicGen,
    tokens: TokenSet,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("was used")

    for part in (model.network.text_encoder, model.network.audio_encoder):
        monkeypatch.setattr(part, "forward", fail)
    train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, SilentProgress())
    assert_same_adapter(tmp_path, reference)


def test_captions_are_dropped_as_the_schedule_says_and_never_in_the_held_out_loss(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[bool] = []
    original = model.training_loss

    def record(
        codes: torch.Tensor, valid: torch.Tensor, states: Sequence[torch.Tensor | None]
    ) -> torch.Tensor:
        if torch.is_grad_enabled():
            dropped.extend(state is None for state in states)
        else:
            assert all(state is not None for state in states)
        return original(codes, valid, states)

    monkeypatch.setattr(model, "training_loss", record)
    train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, SilentProgress())
    expected = np.concatenate([drop_captions(0, step, 4, 0.5) for step in range(8)])
    assert dropped == expected.tolist()


def test_the_same_seed_gives_the_same_adapter_and_another_seed_another(
    model: TransformersMusicGen, tokens: TokenSet, reference: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1234)  # the surrounding generator has no say
    before = torch.get_rng_state()
    train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path / "a", SilentProgress())
    assert torch.equal(torch.get_rng_state(), before)
    assert_same_adapter(tmp_path / "a", reference)
    train_adapter(tokens, model, LORA, TRAIN, 1, tmp_path / "b", SilentProgress())
    a, b = (load_file(tmp_path / name / "adapter" / ADAPTER_FILES[0]) for name in "ab")
    assert all(not torch.equal(a[name], b[name]) for name in a)


def test_adapter_loads_with_plain_peft_and_changes_the_base(
    model: TransformersMusicGen, tokens: TokenSet, folder: Path, reference: Path
) -> None:
    network = MusicgenForConditionalGeneration.from_pretrained(folder)
    ids = model._tokenizer(["a song"], return_tensors="pt")
    inputs = torch.arange(20).view(4, 5)
    with torch.no_grad():
        base = network(**ids, decoder_input_ids=inputs).logits
        plain = peft.PeftModel.from_pretrained(network, str(reference / "adapter"))
        adapted = plain(**ids, decoder_input_ids=inputs).logits
        model.load_adapter(reference / "adapter")
        ours = model.network(**ids, decoder_input_ids=inputs).logits
    assert torch.equal(adapted, ours)
    assert float((adapted - base).abs().max()) > 1e-3


@pytest.mark.parametrize("stop_after", [1, 5, 8])
def test_a_run_that_was_interrupted_goes_on_bit_for_bit(
    model: TransformersMusicGen, tokens: TokenSet, reference: Path, tmp_path: Path, stop_after: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, StopAt(stop_after, KeyboardInterrupt()))
    assert not (tmp_path / "adapter").exists()
    kept = [path.name for path in (tmp_path / "checkpoint").iterdir()] if stop_after > 2 else []
    assert kept == (["state.safetensors"] if stop_after > 2 else [])
    progress = Recorder()
    train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, progress)
    assert_same_adapter(tmp_path, reference)
    assert without_times(tmp_path) == without_times(reference)
    assert progress.done == 8
    done = {1: 0, 5: 4, 8: 6}[stop_after]
    assert progress.messages == ([f"training resumes from step {done}"] if done else [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter"]


CHILD = """
import sys, time
from pathlib import Path
import torch
from lora_bench.models import load_model
from lora_bench.models.token_set import load_tokens
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import LoraSpec, ModelSpec, TrainSpec
from lora_bench.stages.train import train_adapter

class Hang(SilentProgress):
    n = 0
    def advance(self, n=1, *, note=""):
        self.n += n
        if self.n == 5:
            Path(sys.argv[3], "five").touch()
            time.sleep(600)

torch.set_num_threads(int(sys.argv[4]))
train_adapter(
    load_tokens(Path(sys.argv[2])), load_model(ModelSpec(id=sys.argv[1]), device="cpu"),
    LoraSpec.model_validate_json(sys.argv[5]), TrainSpec.model_validate_json(sys.argv[6]), 0,
    Path(sys.argv[3]), Hang(),
)
"""


def test_a_run_killed_by_sigkill_goes_on_bit_for_bit(
    model: TransformersMusicGen, folder: Path, reference: Path, tmp_path: Path
) -> None:
    manifest, store = make_manifest(tmp_path / "data"), Store(tmp_path / "cache")
    tokens = encode_dataset(manifest, model, store, SilentProgress())
    place = tmp_path / "run"
    place.mkdir()
    arguments = [folder, store.folder("tokens", tokens.key), place, torch.get_num_threads()]
    settings = [LORA.model_dump_json(), TRAIN.model_dump_json()]
    child = subprocess.Popen([sys.executable, "-c", CHILD, *map(str, arguments), *settings], cwd=Path.cwd())
    try:
        while not (place / "five").exists():
            assert child.poll() is None, "the child ended by itself"
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert child.returncode == -signal.SIGKILL
    (place / "five").unlink()
    progress = Recorder()
    train_adapter(tokens, model, LORA, TRAIN, 0, place, progress)
    assert progress.messages == ["training resumes from step 4"]
    assert_same_adapter(place, reference)


def test_a_finished_run_is_taken_up_without_training(
    model: TransformersMusicGen, tokens: TokenSet, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "training_loss", lambda *_: pytest.fail("trained again"))
    result = train_adapter(tokens, model, LORA, TRAIN, 0, reference, SilentProgress())
    assert result.adapter == reference / "adapter"
    assert result.curve[-1].step == 8
    assert result.matched_modules == {"self_attention": 8, "cross_attention": 8}
    assert model.adapter_parameters()


def test_a_checkpoint_that_a_kill_left_beside_a_finished_adapter_goes(
    model: TransformersMusicGen, tokens: TokenSet, reference: Path, tmp_path: Path
) -> None:
    shutil.copytree(reference / "adapter", tmp_path / "adapter")
    (tmp_path / "checkpoint").mkdir()
    train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, SilentProgress())
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_keeping_checkpoints_more_often_does_not_train_again(
    model: TransformersMusicGen, tokens: TokenSet, reference: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "training_loss", lambda *_: pytest.fail("trained again"))
    often = TRAIN.model_copy(update={"checkpoint_every": 1})
    assert train_adapter(tokens, model, LORA, often, 0, reference, SilentProgress()).curve[-1].step == 8


def test_a_measurement_may_end_the_training_but_not_the_first_or_last_one(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    seen: list[tuple[int, float]] = []

    def stop(step: int, loss: float) -> None:
        seen.append((step, loss))
        if len(seen) == 2:
            raise StoppedEarlyError("behind")

    train = TRAIN.model_copy(update={"eval_every": 2})
    with pytest.raises(StoppedEarlyError):
        train_adapter(tokens, model, LORA, train, 0, tmp_path, SilentProgress(), stop)
    assert [step for step, _ in seen] == [2, 4]
    assert not (tmp_path / "adapter").exists()


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(
    model: TransformersMusicGen, tokens: TokenSet, reference: Path, tmp_path: Path
) -> None:
    other = TRAIN.model_copy(update={"lr": 1e-4})
    with pytest.raises(KeyboardInterrupt):
        train_adapter(tokens, model, LORA, other, 0, tmp_path, StopAt(5, KeyboardInterrupt()))
    progress = Recorder()
    train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, progress)
    assert progress.messages == [
        "the checkpoint was made with other data or settings; training begins at step 0"
    ]
    assert_same_adapter(tmp_path, reference)


def test_a_damaged_checkpoint_is_not_gone_on_from(
    model: TransformersMusicGen, tokens: TokenSet, reference: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, StopAt(5, KeyboardInterrupt()))
    state = tmp_path / "checkpoint" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-10])
    progress = Recorder()
    train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, progress)
    assert progress.messages[0].startswith("the checkpoint is damaged")
    assert_same_adapter(tmp_path, reference)


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoint(
    model: TransformersMusicGen,
    tokens: TokenSet,
    reference: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original, calls = model.training_loss, 0

    def break_late(*args: object) -> torch.Tensor:
        nonlocal calls
        calls += torch.is_grad_enabled()
        loss = original(*args)  # type: ignore[arg-type]
        return loss * float("nan") if calls > 10 else loss

    with monkeypatch.context() as patch:
        patch.setattr(model, "training_loss", break_late)
        with pytest.raises(TrainingError) as caught:
            train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, SilentProgress())
    message = str(caught.value)
    assert message.startswith("step 6 of 8: the loss is nan (last ")
    assert "lower train.lr (now 0.005)" in message
    assert (tmp_path / "checkpoint" / "state.safetensors").is_file()
    assert not (tmp_path / "adapter").exists()
    train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, SilentProgress())
    assert_same_adapter(tmp_path, reference)


def test_a_gradient_that_is_not_finite_stops_the_run(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = model.training_loss

    def break_gradient(*args: object) -> torch.Tensor:
        loss = original(*args)  # type: ignore[arg-type]
        if loss.requires_grad:
            loss.register_hook(lambda gradient: gradient * float("inf"))
        return loss

    monkeypatch.setattr(model, "training_loss", break_gradient)
    with pytest.raises(TrainingError, match=r"step 1 of 8: the gradient's norm is (nan|inf)"):
        train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, SilentProgress())


def test_out_of_memory_says_what_did_not_fit_and_what_to_do(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(model, "training_loss", fail)
    with pytest.raises(OutOfMemoryError) as caught:
        train_adapter(tokens, model, LORA, TRAIN, 0, tmp_path, SilentProgress())
    message = str(caught.value)
    assert "step 1: forward passes of 1 slices of 1 s (train.batch_size is 2, halved as far" in message
    assert "did not fit into cpu (" in message
    assert "set train.gradient_checkpointing: true" in message


def test_layers_that_cannot_be_compiled_are_an_error_with_a_mend(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled_steps, "COMPILER", "one_that_is_not_there")
    train = TRAIN.model_copy(update={"compile": True})
    with pytest.raises(
        ResourceError, match=r"train\.compile: torch could not .* or leave train\.compile out"
    ):
        train_adapter(tokens, model, LORA, train, 0, tmp_path, SilentProgress())
    assert not (tmp_path / "adapter").exists()


def test_out_of_memory_halves_the_passes_and_gives_the_same_adapter(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = train_variant(tokens, model, tmp_path / "plain")
    original, sizes = model.training_loss, []

    def fail_when_large(codes: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(codes))
        if len(codes) > 1 and len(sizes) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(codes, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "training_loss", fail_when_large)
    progress = Recorder()
    train = TrainSpec(steps=4, lr=5e-3, batch_size=4, caption_dropout=0.5)
    train_adapter(tokens, model, LoraSpec(rank=2, dropout=0.0), train, 0, tmp_path / "halved", progress)
    halved = load_file(tmp_path / "halved" / "adapter" / ADAPTER_FILES[0])
    for name, weight in plain.items():
        torch.testing.assert_close(weight, halved[name], rtol=1e-3, atol=1e-5)
    assert progress.messages == [
        "out of memory with 4 slices per pass; going on with 2",
        "out of memory with 2 slices per pass; going on with 1",
    ]
    notes = json.loads((tmp_path / "halved" / "adapter" / "lora_bench.json").read_text(encoding="utf-8"))
    assert notes["slices_per_pass"] == 1


def test_nothing_to_train_on_is_an_error(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    only_eval = replace(tokens, splits=("eval",) * len(tokens))
    with pytest.raises(TrainingError, match="the dataset has no training slice"):
        train_adapter(only_eval, model, LORA, TRAIN, 0, tmp_path, SilentProgress())


def test_without_held_out_slices_there_is_no_held_out_loss(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    only_train = replace(tokens, splits=("train",) * len(tokens), key="other")
    result = train_adapter(only_train, model, LORA, TRAIN, 0, tmp_path, SilentProgress())
    assert all(point.eval_loss is None for point in result.curve)


def test_a_target_that_matches_nothing_stops_before_training(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    with pytest.raises(NoModulesMatchedError):
        train_adapter(
            tokens, model, LoraSpec(targets=["in_proj_weight"]), TRAIN, 0, tmp_path, SilentProgress()
        )
    assert list(tmp_path.iterdir()) == []


def train_variant(
    tokens: TokenSet, model: TransformersMusicGen, folder: Path, **changes: object
) -> dict[str, torch.Tensor]:
    plain = TrainSpec(steps=4, lr=5e-3, batch_size=4, caption_dropout=0.5)
    train = plain.model_copy(update=changes)
    train_adapter(tokens, model, LoraSpec(rank=2, dropout=0.0), train, 0, folder, SilentProgress())
    return load_file(folder / "adapter" / ADAPTER_FILES[0])


@pytest.mark.parametrize(
    "changes", [{"batch_size": 2, "grad_accumulation": 2}, {"gradient_checkpointing": True}], ids=str
)
def test_ways_to_save_memory_give_the_same_adapter(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path, changes: dict[str, object]
) -> None:
    plain = train_variant(tokens, model, tmp_path / "plain")
    thrifty = train_variant(tokens, model, tmp_path / "thrifty", **changes)
    for name, weight in plain.items():
        torch.testing.assert_close(weight, thrifty[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("first", [False, True])
def test_a_training_resumed_with_the_other_checkpointing_gives_the_same_adapter(
    model: TransformersMusicGen, tokens: TokenSet, reference: Path, tmp_path: Path, first: bool
) -> None:
    train = TRAIN.model_copy(update={"gradient_checkpointing": "auto"})
    seen: list[bool] = []
    original = model.set_training

    def record(training: bool, *, gradient_checkpointing: bool = False, compiled: bool = False) -> None:
        seen.extend([gradient_checkpointing] * training)
        original(training, gradient_checkpointing=gradient_checkpointing, compiled=compiled)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "set_training", record)
        stop = StopAt(5, KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            train_adapter(tokens, model, LORA, train, 0, tmp_path, stop, is_checkpointed=first)
        assert set(seen) == {first}
        seen.clear()
        progress = Recorder()
        result = train_adapter(tokens, model, LORA, train, 0, tmp_path, progress, is_checkpointed=not first)
        assert set(seen) == {not first}
    assert progress.messages == ["training resumes from step 4"]
    assert_same_adapter(tmp_path, reference)
    assert without_times(tmp_path) == without_times(reference)
    assert result.gradient_checkpointing is not first
    notes = json.loads((tmp_path / "adapter" / "lora_bench.json").read_text(encoding="utf-8"))
    assert notes["train"]["gradient_checkpointing"] is not first  # how it was trained, in place of `auto`


def test_clipping_bounds_the_step(model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path) -> None:
    seen: list[float] = []
    original: Callable[..., torch.Tensor] = torch.nn.utils.clip_grad_norm_

    def record(parameters: object, limit: float) -> torch.Tensor:
        kept = list(parameters)  # type: ignore[call-overload]
        norm = original(kept, limit)
        seen.append(float(torch.stack([p.grad.norm() for p in kept if p.grad is not None]).norm()))
        return norm

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.utils, "clip_grad_norm_", record)
        train_variant(tokens, model, tmp_path / "clipped", max_grad_norm=1e-3)
        clipped, seen[:] = list(seen), []
        train_variant(tokens, model, tmp_path / "free", max_grad_norm=None)
    assert max(clipped) == pytest.approx(1e-3, rel=1e-3)
    assert max(seen) > 1e-2


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_decoders_train_float32_adapters(
    folder: Path, tokens: TokenSet, reference: Path, tmp_path: Path, dtype: str
) -> None:
    half = load_model(ModelSpec(id=str(folder), dtype=dtype), device="cpu")  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        train_adapter(tokens, half, LORA, TRAIN, 0, tmp_path, StopAt(5, KeyboardInterrupt()))
    result = train_adapter(tokens, half, LORA, TRAIN, 0, tmp_path, SilentProgress())
    weights = load_file(tmp_path / "adapter" / ADAPTER_FILES[0])
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
    exact = without_times(reference)[-1]["eval_loss"]
    assert result.curve[-1].eval_loss == pytest.approx(exact, abs=0.05)


@pytest.mark.skipif(
    not has_fast_bfloat16(torch.device("cpu")), reason="measured: bfloat16 is not faster on this CPU"
)
def test_steps_in_bfloat16_follow_those_in_float32(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path
) -> None:
    losses: dict[str | None, list[float]] = {}
    for precision in (None, "bfloat16"):
        train = TrainSpec(steps=20, lr=1e-2, batch_size=4, eval_every=20, precision=precision)  # type: ignore[arg-type]
        result = train_adapter(
            tokens, model, LoraSpec(rank=4), train, 0, tmp_path / str(precision), SilentProgress()
        )
        losses[precision] = [point.eval_loss for point in result.curve if point.eval_loss is not None]
        weights = load_file(tmp_path / str(precision) / "adapter" / ADAPTER_FILES[0])
        assert {weight.dtype for weight in weights.values()} == {torch.float32}
    exact, rounded = losses[None], losses["bfloat16"]
    assert rounded[0] == exact[0]  # held-out losses are measured in float32
    assert rounded[-1] != exact[-1]
    assert rounded[-1] == pytest.approx(exact[-1], abs=0.02)
    assert rounded[-1] < rounded[0]


def test_bfloat16_steps_are_refused_where_they_would_be_slow(
    model: TransformersMusicGen, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_bench.models.device._measure_bfloat16", lambda: 1.0)
    train = TRAIN.model_copy(update={"precision": "bfloat16"})
    with pytest.raises(
        ResourceError, match=r"train\.precision: bfloat16 is not faster than float32 on this cpu"
    ):
        train_adapter(tokens, model, LORA, train, 0, tmp_path, SilentProgress())
    assert list(tmp_path.iterdir()) == []


def test_float32_steps_of_rounded_weights_are_refused(folder: Path, tokens: TokenSet, tmp_path: Path) -> None:
    half = load_model(ModelSpec(id=str(folder), dtype="bfloat16"), device="cpu")
    train = TRAIN.model_copy(update={"precision": "float32"})
    with pytest.raises(ModelError, match=r"the model's weights are bfloat16; set model\.dtype: float32"):
        train_adapter(tokens, half, LORA, train, 0, tmp_path, SilentProgress())


def test_a_fused_optimiser_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    def make() -> tuple[dict[str, torch.nn.Parameter], torch.optim.AdamW]:
        parameter = torch.nn.Parameter(torch.ones(4))
        return {"a": parameter}, torch.optim.AdamW([parameter], lr=0.1, fused=True)

    def step(parameters: dict[str, torch.nn.Parameter], optimizer: torch.optim.AdamW) -> None:
        parameters["a"].grad = parameters["a"].detach() * 0.5
        optimizer.step()

    parameters, optimizer = make()
    step(parameters, optimizer)
    save_checkpoint(tmp_path / "state", "key", TrainState(step=1), parameters, optimizer)
    step(parameters, optimizer)
    again, other = make()
    found = load_checkpoint(tmp_path / "state", "key", again, other)
    assert isinstance(found, TrainState)
    step(again, other)
    assert torch.equal(again["a"], parameters["a"])
