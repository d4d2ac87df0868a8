"""Decoding: our loop on either backend against transformers' `generate` (with its default and its static
cache) and audiocraft's own.

    python benchmarks/decode.py --model small --seconds 4 --batch 16
    python benchmarks/decode.py --model pocket --seconds 8 --batch 8
    python benchmarks/decode.py --device cuda --dtype bfloat16 --without audiocraft "lora_bench on audiocraft"

All sample with guidance 3 and top-k 250, the same number of codes; the codec is left out.  Each contender
warms up with a short generation first, in which ours also prepares its matrices, as it does once per trial.
On a GPU the warm-up is as long as the generation, because steps are captured or compiled for their shapes.

On a GPU `--dtype` is that of our decoder and of all of transformers' network; audiocraft runs under autocast.  A second
table has the floor that memory sets: the bytes of the matrices that a step reads, over the speed of a copy measured
there; keys and values come on top.
"""

from __future__ import annotations

import argparse
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any, Literal

import devices
import torch
from models import NAMES, count_step_bytes, make_audiocraft_lm, make_model
from side_by_side import Rounds, run_side_by_side

from lora_bench.models.decoding.decoder import Decoder, generate_batches
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec

PROMPT = "upbeat orchestral piece with jazz influences"
WARM_UP_FRAMES = 10


def run_ours(
    arguments: argparse.Namespace,
    backend: Literal["transformers", "audiocraft"] = "transformers",
    quantization: Literal["int8"] | None = None,
) -> dict[str, float]:
    device = devices.find_device(arguments)
    model = make_model(arguments.model, backend, device, devices.find_dtype(arguments))
    if arguments.rank:
        model.inject_lora(LoraSpec(rank=arguments.rank, targets=arguments.targets), seed=0)
    generation = GenerationSpec(batch_size=arguments.batch, quantization=quantization)
    decoder = Decoder(model, generation)  # prepared while it warms up, as for all prompts of a trial
    step_bytes = count_step_bytes(model.network.config, model.dtype) if backend == "transformers" else 0
    loaded_gib = devices.begin_work(device)

    def generate(n_frames: int) -> None:
        clips = range(arguments.batch)
        quiet = SilentProgress()
        (batch,) = generate_batches(model, PROMPT, clips, n_frames, generation, quiet, decoder)
        assert batch.codes.shape == (arguments.batch, model.info.n_codebooks, n_frames)

    return _measure(generate, model.info.frame_rate_hz, arguments, loaded_gib, step_bytes)


def run_transformers(arguments: argparse.Namespace, **options: Any) -> dict[str, float]:
    device, dtype = devices.find_device(arguments), devices.find_dtype(arguments)
    model: Any = make_model(arguments.model, device=device, dtype=dtype)
    if arguments.rank:
        model.inject_lora(LoraSpec(rank=arguments.rank, targets=arguments.targets), seed=0)
    network, tokenizer = model.network.to(dtype), model._tokenizer  # text encoder and projection too
    seen: list[torch.Tensor] = []

    def skip_codec(codes: torch.Tensor, **_: Any) -> Any:
        seen.append(codes)
        return SimpleNamespace(audio_values=codes)

    network.audio_encoder.decode = skip_codec
    inputs = tokenizer([PROMPT] * arguments.batch, return_tensors="pt").to(device)
    settings = {"do_sample": True, "guidance_scale": 3.0, "top_k": 250, "temperature": 1.0, **options}
    step_bytes = count_step_bytes(network.config, dtype)
    loaded_gib = devices.begin_work(device)

    def generate(n_frames: int) -> None:
        network.generate(**inputs, max_new_tokens=n_frames + model.info.max_delay, **settings)
        assert seen[-1].shape[-1] == n_frames

    return _measure(generate, model.info.frame_rate_hz, arguments, loaded_gib, step_bytes)


def run_audiocraft(arguments: argparse.Namespace) -> dict[str, float]:
    device, dtype = devices.find_device(arguments), devices.find_dtype(arguments)
    lm, config = make_audiocraft_lm(arguments.model, device)
    codec = config.audio_encoder
    from audiocraft.modules.conditioners import ConditioningAttributes

    conditions = [ConditioningAttributes(text={"description": PROMPT})] * arguments.batch
    loaded_gib = devices.begin_work(device)

    def generate(n_frames: int) -> None:
        with nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype):
            codes = lm.generate(
                conditions=conditions,
                num_samples=arguments.batch,
                max_gen_len=n_frames,
                top_k=min(250, lm.card),
                temp=1.0,
                cfg_coef=3.0,
            )
        assert codes.shape[-1] == n_frames

    return _measure(generate, codec.sampling_rate / codec.hop_length, arguments, loaded_gib)


def _measure(
    generate: Any, frame_rate_hz: float, arguments: argparse.Namespace, loaded_gib: float, step_bytes: int = 0
) -> dict[str, float]:
    """Figures of one generation after another that warms up; with the floor on a GPU if `step_bytes` are known."""
    device = devices.find_device(arguments)
    n_frames = round(arguments.seconds * frame_rate_hz)
    begin = devices.read_clock_s(device)
    generate(n_frames if device.type == "cuda" else WARM_UP_FRAMES)
    warm_up_s = devices.read_clock_s(device) - begin
    begin = devices.read_clock_s(device)
    generate(n_frames)
    wall_s = devices.read_clock_s(device) - begin
    speed = arguments.batch * arguments.seconds / wall_s
    figures = {"wall_s": wall_s, "audio_s_per_s": speed, "loaded_gib": loaded_gib, "warm_up_s": warm_up_s}
    figures |= devices.read_peak(device)
    if device.type == "cuda" and step_bytes:
        copied = devices.measure_copy_bytes_per_s(device)
        step_s, floor_s = wall_s / n_frames, step_bytes / copied
        figures |= {"step_bytes": step_bytes, "copy_bytes_per_s": copied}
        figures |= {"step_s": step_s, "floor_s": floor_s, "ratio_to_floor": step_s / floor_s}
    return figures


def leave_out(arguments: argparse.Namespace) -> list[str]:
    """Contenders that do not run where they are asked to; complains of a device that is not there."""
    devices.check_device(arguments)
    return [] if devices.find_device(arguments).type == "cpu" else ["lora_bench int8"]  # it is for CPUs


def describe(arguments: argparse.Namespace, rounds: Rounds) -> str:
    """The device, and on a GPU the second table."""
    lines = [devices.describe_device(arguments)]
    best = {name: max(runs, key=lambda run: run["audio_s_per_s"]) for name, runs in rounds.items()}
    known = {name: run for name, run in best.items() if "floor_s" in run}
    if known:
        lines += ["", "| | step ms | GB of matrices | copy GB/s | floor ms | ratio to the floor |"]
        lines += ["|---|---|---|---|---|---|"]
    for name, run in known.items():
        figures = (1e3 * run["step_s"], run["step_bytes"] / 1e9, run["copy_bytes_per_s"] / 1e9)
        cells = [f"{value:.3f}" for value in (*figures, 1e3 * run["floor_s"], run["ratio_to_floor"])]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=NAMES, default="small")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip")
    parser.add_argument("--batch", type=int, default=16, help="clips at once")
    parser.add_argument("--rank", type=int, default=0, help="of an adapter; 0 is none")
    parser.add_argument("--targets", default="attention+ffn", help="of the adapter")
    devices.add_device_options(parser)
    contenders = {
        "lora_bench": run_ours,
        "lora_bench int8": lambda a: run_ours(a, quantization="int8"),
        "lora_bench on audiocraft": lambda a: run_ours(a, "audiocraft"),
        "transformers": run_transformers,
        "transformers static cache": lambda a: run_transformers(a, cache_implementation="static"),
        "audiocraft": run_audiocraft,
    }
    run_side_by_side(
        parser,
        contenders,
        figure="audio_s_per_s",
        unit="audio seconds per second",
        prepare=leave_out,
        describe=describe,
    )


if __name__ == "__main__":
    main()
