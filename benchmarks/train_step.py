"""One training step: ours on either backend against plain transformers + PEFT and audiocraft + PEFT steps on
the same codes, caption and LoRA.

    python benchmarks/train_step.py --model small --seconds 8 --batch 4
    python benchmarks/train_step.py --model pocket --seconds 8 --batch 8
    python benchmarks/train_step.py --device cuda --without audiocraft "lora_bench on audiocraft"

The plain step is `model(**text, labels=delayed codes).loss.backward()` in train mode and AdamW, so the text
encoder runs in every step; its second form also encodes the audio in every step, as scripts without
a token cache do.  audiocraft's is `compute_predictions` and its cross-entropy over the mask, with the packed
attention split so that PEFT can adapt the same layers.  With `--dtype bfloat16` our decoder and all of
transformers' network but its codec are in it, and audiocraft runs under autocast.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import devices
import numpy as np
import peft
import torch
from models import NAMES, make_audiocraft_lm, make_model
from side_by_side import run_side_by_side

from lora_bench.models.base import MusicModel
from lora_bench.models.bridges.tensors import name_in_audiocraft
from lora_bench.models.delay_pattern import delay_codes
from lora_bench.models.targets import resolve_targets
from lora_bench.models.token_set import TokenSet
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import LoraSpec, TrainSpec
from lora_bench.stages.train import train_adapter

CAPTION = "upbeat orchestral piece with jazz influences"


def _make_lora(arguments: argparse.Namespace) -> LoraSpec:
    return LoraSpec(rank=arguments.rank, targets=arguments.targets, dropout=0.05)


def _make_codes(model: MusicModel, arguments: argparse.Namespace) -> torch.Tensor:
    n_frames = round(arguments.seconds * model.info.frame_rate_hz)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch, model.info.n_codebooks, n_frames)
    return torch.randint(0, model.info.codebook_size, shape, generator=generator)


class StepClock(SilentProgress):
    """Times of the steps after the first, which warms up."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[float] = []

    def advance(self, n: int = 1, *, note: str = "") -> None:  # noqa: ARG002, D102
        if n == 1:
            self.marks.append(devices.read_clock_s(self.device))

    def best_s(self) -> float:
        """Shortest time between two steps."""
        return min(b - a for a, b in zip(self.marks[:-1], self.marks[1:], strict=True))


def run_ours(
    arguments: argparse.Namespace,
    backend: Literal["transformers", "audiocraft"] = "transformers",
    **changes: Any,
) -> dict[str, float]:
    """Steps of our loop; `changes` are settings of `TrainSpec`."""
    device = devices.find_device(arguments)
    model = make_model(arguments.model, backend, device, devices.find_dtype(arguments))
    codes = _make_codes(model, arguments)
    n = arguments.batch
    tokens = TokenSet(
        key="benchmark",
        codes=codes.numpy().astype(np.int16),
        valid_frames=np.full(n, codes.shape[-1], dtype=np.int64),
        splits=("train",) * n,
        track_ids=("track",) * n,
        caption_index=np.zeros(n, dtype=np.int64),
        captions=(CAPTION,),
        text_states=(model.encode_text([CAPTION])[0].numpy(),),
        slice_s=arguments.seconds,
    )
    steps = arguments.steps + 1
    train = TrainSpec(
        steps=steps,
        batch_size=n,
        caption_dropout=0.0,
        eval_every=steps,
        checkpoint_every=steps,
        gradient_checkpointing=arguments.gradient_checkpointing,
        **changes,
    )
    loaded_gib = devices.begin_work(device)
    clock = StepClock(device)
    with tempfile.TemporaryDirectory() as folder:
        train_adapter(tokens, model, _make_lora(arguments), train, 0, Path(folder), clock)
    return _figures(clock.best_s(), arguments, loaded_gib)


def _configure_peft(arguments: argparse.Namespace, targets: Iterable[str]) -> peft.LoraConfig:
    lora = _make_lora(arguments)
    return peft.LoraConfig(
        r=lora.rank,
        lora_alpha=int(lora.resolved_alpha),
        lora_dropout=lora.dropout,
        target_modules=list(targets),
    )


def run_transformers(arguments: argparse.Namespace, *, encode_audio: bool) -> dict[str, float]:
    device, dtype = devices.find_device(arguments), devices.find_dtype(arguments)
    model: Any = make_model(arguments.model, device=device, dtype=dtype)
    model.network.text_encoder.to(dtype)
    if hasattr(model.network, "enc_to_dec_proj"):
        model.network.enc_to_dec_proj.to(dtype)
    codes = _make_codes(model, arguments).to(device)
    targets = resolve_targets(arguments.targets, model.linear_module_names())
    network: Any = peft.get_peft_model(model.network, _configure_peft(arguments, targets))
    if arguments.gradient_checkpointing:
        model.network.decoder._set_gradient_checkpointing(True, torch.utils.checkpoint.checkpoint)
    network.train()
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-4)
    text = model._tokenizer([CAPTION] * arguments.batch, return_tensors="pt").to(device)
    n_samples = codes.shape[-1] * model.info.hop_samples
    audio = torch.randn(arguments.batch, 1, n_samples, generator=torch.Generator().manual_seed(0))
    audio = audio.to(device) * 0.1
    loaded_gib = devices.begin_work(device)

    def take_step() -> None:
        used = codes
        if encode_audio:
            with torch.no_grad():
                used = model.network.audio_encoder.encode(audio).audio_codes[0]
        valid = torch.full((len(used),), used.shape[-1], device=device)
        labels = delay_codes(used, valid, model.info.delays, model.info.codebook_size).transpose(1, 2)
        network(**text, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _figures(_best_of(take_step, arguments.steps, device), arguments, loaded_gib)


def run_audiocraft(arguments: argparse.Namespace) -> dict[str, float]:
    device, dtype = devices.find_device(arguments), devices.find_dtype(arguments)
    model = make_model(arguments.model)
    codes = _make_codes(model, arguments).to(device)
    targets = resolve_targets(arguments.targets, model.linear_module_names())
    del model
    lm, _ = make_audiocraft_lm(arguments.model, device)
    from audiocraft.modules.conditioners import ConditioningAttributes

    from lora_bench.models.audiocraft_backend.attention import split_attentions

    split_attentions(lm)
    peft.get_peft_model(lm, _configure_peft(arguments, map(name_in_audiocraft, targets)))
    lm.transformer.checkpointing = "torch" if arguments.gradient_checkpointing else "none"
    lm.train()
    lm.cfg_dropout.p = 0.0  # the others drop no captions either
    parameters = [p for p in lm.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    conditions = [ConditioningAttributes(text={"description": CAPTION})] * arguments.batch
    loaded_gib = devices.begin_work(device)

    def take_step() -> None:
        with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
            found = lm.compute_predictions(codes, conditions)
        losses = [
            torch.nn.functional.cross_entropy(
                found.logits[:, book][found.mask[:, book]], codes[:, book][found.mask[:, book]]
            )
            for book in range(codes.shape[1])
        ]
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return _figures(_best_of(take_step, arguments.steps, device), arguments, loaded_gib)


def _best_of(take_step: Callable[[], None], n_steps: int, device: torch.device) -> float:
    take_step()
    times: list[float] = []
    for _ in range(n_steps):
        begin = devices.read_clock_s(device)
        take_step()
        times.append(devices.read_clock_s(device) - begin)
    return min(times)


def _figures(step_s: float, arguments: argparse.Namespace, loaded_gib: float) -> dict[str, float]:
    speed = arguments.batch * arguments.seconds / step_s
    peak = devices.read_peak(devices.find_device(arguments))
    return {"step_s": step_s, "audio_s_per_s": speed, "loaded_gib": loaded_gib, **peak}


def leave_out(arguments: argparse.Namespace) -> list[str]:
    """Contenders that are another's double; complains of a device that is not there."""
    devices.check_device(arguments)
    # `train.precision` is for float32 weights
    rounded = ["lora_bench bfloat16", "lora_bench bfloat16, compiled"]
    return rounded if arguments.dtype == "bfloat16" else []


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=NAMES, default="small")
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a slice")
    parser.add_argument("--batch", type=int, default=4, help="slices per step")
    parser.add_argument("--steps", type=int, default=2, help="timed steps; one more warms up")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--targets", default="attention+ffn")
    parser.add_argument("--gradient-checkpointing", action="store_true")
    devices.add_device_options(parser)
    contenders = {
        "lora_bench": run_ours,
        "lora_bench bfloat16": lambda a: run_ours(a, precision="bfloat16"),
        "lora_bench compiled": lambda a: run_ours(a, compile=True),
        "lora_bench bfloat16, compiled": lambda a: run_ours(a, precision="bfloat16", compile=True),
        "lora_bench on audiocraft": lambda a: run_ours(a, "audiocraft"),
        "transformers": lambda a: run_transformers(a, encode_audio=False),
        "transformers, audio encoded too": lambda a: run_transformers(a, encode_audio=True),
        "audiocraft": run_audiocraft,
    }
    run_side_by_side(
        parser,
        contenders,
        figure="audio_s_per_s",
        unit="audio seconds learnt per second",
        prepare=leave_out,
        describe=lambda arguments, _: devices.describe_device(arguments),
    )


if __name__ == "__main__":
    main()
