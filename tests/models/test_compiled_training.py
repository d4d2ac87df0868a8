"""Compiled training steps against the layers' own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lora_bench.models import compiled_training as compiled_steps
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import LoraSpec

AddAdapter = Callable[[TransformersMusicGen, LoraSpec], None]


def draw_codes(model: TransformersMusicGen, n_clips: int, n_frames: int) -> torch.Tensor:
    shape = (n_clips, model.info.n_codebooks, n_frames)
    return torch.randint(0, model.info.codebook_size, shape, generator=torch.Generator().manual_seed(0))


def test_compiled_layers_give_the_same_gradients_and_leave_no_trace(
    tiny: TransformersMusicGen, add_adapter: AddAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated as in earnest, but not made into machine code, which takes long."""
    monkeypatch.setattr(compiled_steps, "COMPILER", "aot_eager")
    check_compiled_layers(tiny, add_adapter, monkeypatch, lengths=[8])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_compiled_to_machine_code_give_the_same_gradients(
    checkpointing: bool, tiny: TransformersMusicGen, add_adapter: AddAdapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_compiled_layers(
        tiny, add_adapter, monkeypatch, lengths=[8, 11, 9], gradient_checkpointing=checkpointing
    )


def check_compiled_layers(
    tiny: TransformersMusicGen,
    add_adapter: AddAdapter,
    monkeypatch: pytest.MonkeyPatch,
    *,
    lengths: list[int],
    **options: bool,
) -> None:
    n_calls = count_compiled_calls(monkeypatch)
    states = tiny.encode_text(["a song", "b", "another song"])
    gradients: list[list[torch.Tensor]] = []
    for compiled in (False, True):
        add_adapter(tiny, LoraSpec(rank=2, targets="attention+ffn", dropout=0.0))
        tiny.set_training(True, compiled=compiled, **options)
        for n_frames in lengths:
            valid_frames, texts = torch.tensor([n_frames, 6]), [states[n_frames % 3], None]
            tiny.training_loss(draw_codes(tiny, 2, n_frames), valid_frames, texts).backward()
        gradients.append([p.grad.clone() for p in tiny.adapter_parameters().values() if p.grad is not None])
    for plain, other in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, other, rtol=1e-4, atol=1e-6)
    used = n_calls()
    assert used >= len(lengths) * len(tiny._find_layers())
    tiny.set_training(False, compiled=True)
    measured = tiny.training_loss(draw_codes(tiny, 1, 8), torch.tensor([8]), states[:1])
    tiny.remove_adapter()
    assert torch.isfinite(measured)
    assert n_calls() == used  # held-out losses do not come from compiled layers
    assert not any("forward" in vars(layer) for layer in tiny._find_layers())


def count_compiled_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    compile_layer, n_calls = torch.compile, 0

    def compile_and_count(*arguments: Any, **options: Any) -> Any:
        compiled = compile_layer(*arguments, **options)

        def call(*inputs: Any, **more: Any) -> Any:
            nonlocal n_calls
            n_calls += 1
            return compiled(*inputs, **more)

        return call

    monkeypatch.setattr(torch, "compile", compile_and_count)
    return lambda: n_calls
