"""Decoding: our loop on either backend against transformers' `generate` (with its default and its static
cache) and audiocraft's own.

    python benchmarks/decode.py --model small --seconds 4 --batch 16
    python benchmarks/decode.py --model pocket --seconds 8 --batch 8

All sample with guidance 3 and top-k 250, the same number of codes; the codec is left out.  Each contender
warms up with a short generation first, in which ours also prepares its matrices, as it does once per trial.
"""

from __future__ import annotations

import argparse
import time
from types import SimpleNamespace
from typing import Any

import torch
from models import NAMES, make_audiocraft_parts, make_model
from side_by_side import resident_gib, run_side_by_side

from lora_bench.models.decoding import Decoder, generate_batches
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec

PROMPT = "upbeat orchestral piece with jazz influences"
WARM_UP_FRAMES = 10


def run_ours(
    arguments: argparse.Namespace, backend: str = "transformers", quantization: str | None = None
) -> dict[str, float]:
    model = make_model(arguments.model, backend)
    if arguments.rank:
        model.inject_lora(LoraSpec(rank=arguments.rank, targets=arguments.targets), seed=0)
    generation = GenerationSpec(batch_size=arguments.batch, quantization=quantization)
    decoder = Decoder(model, generation)  # prepared while it warms up, as for all prompts of a trial
    loaded_gib = resident_gib()

    def generate(n_frames: int) -> None:
        clips = range(arguments.batch)
        quiet = SilentProgress()
        (batch,) = generate_batches(model, PROMPT, clips, n_frames, generation, quiet, decoder)
        assert batch.codes.shape == (arguments.batch, model.info.n_codebooks, n_frames)

    return _measure(generate, model.info.frame_rate_hz, arguments, loaded_gib)


def run_transformers(arguments: argparse.Namespace, **options: Any) -> dict[str, float]:
    model = make_model(arguments.model)
    if arguments.rank:
        model.inject_lora(LoraSpec(rank=arguments.rank, targets=arguments.targets), seed=0)
    network, tokenizer = model.network, model._tokenizer
    seen: list[torch.Tensor] = []

    def skip_codec(codes: torch.Tensor, **_: Any) -> Any:
        seen.append(codes)
        return SimpleNamespace(audio_values=codes)

    network.audio_encoder.decode = skip_codec
    inputs = tokenizer([PROMPT] * arguments.batch, return_tensors="pt")
    settings = {"do_sample": True, "guidance_scale": 3.0, "top_k": 250, "temperature": 1.0, **options}
    loaded_gib = resident_gib()

    def generate(n_frames: int) -> None:
        network.generate(**inputs, max_new_tokens=n_frames + max(model.info.delays), **settings)
        assert seen[-1].shape[-1] == n_frames

    return _measure(generate, model.info.frame_rate_hz, arguments, loaded_gib)


def run_audiocraft(arguments: argparse.Namespace) -> dict[str, float]:
    from audiocraft.modules.conditioners import ConditioningAttributes

    from lora_bench.models.audiocraft_networks import build_lm

    parts = make_audiocraft_parts(arguments.model)
    codec: Any = parts.config.audio_encoder
    lm = build_lm(parts, arguments.model)
    conditions = [ConditioningAttributes(text={"description": PROMPT})] * arguments.batch
    loaded_gib = resident_gib()

    def generate(n_frames: int) -> None:
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
    generate: Any, frame_rate_hz: float, arguments: argparse.Namespace, loaded_gib: float
) -> dict[str, float]:
    begin = time.perf_counter()
    generate(WARM_UP_FRAMES)
    warm_up_s = time.perf_counter() - begin
    begin = time.perf_counter()
    generate(round(arguments.seconds * frame_rate_hz))
    wall_s = time.perf_counter() - begin
    speed = arguments.batch * arguments.seconds / wall_s
    return {"wall_s": wall_s, "audio_s_per_s": speed, "loaded_gib": loaded_gib, "warm_up_s": warm_up_s}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=NAMES, default="small")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a clip")
    parser.add_argument("--batch", type=int, default=16, help="clips at once")
    parser.add_argument("--rank", type=int, default=0, help="of an adapter; 0 is none")
    parser.add_argument("--targets", default="attention+ffn", help="of the adapter")
    contenders = {
        "lora_bench": run_ours,
        "lora_bench int8": lambda a: run_ours(a, quantization="int8"),
        "lora_bench on audiocraft": lambda a: run_ours(a, "audiocraft"),
        "transformers": run_transformers,
        "transformers static cache": lambda a: run_transformers(a, cache_implementation="static"),
        "audiocraft": run_audiocraft,
    }
    run_side_by_side(parser, contenders, figure="audio_s_per_s", unit="audio seconds per second")


if __name__ == "__main__":
    main()
