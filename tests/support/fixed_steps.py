"""Steps of fixed shapes on a CPU, in the place of steps that grow."""

from __future__ import annotations

from lora_bench.models.decoding.kv_cache import KeyValueCache
from lora_bench.models.decoding.loop import BUCKET, FixedSteps, Sampling, round_up
from lora_bench.models.decoding.step import DecoderStep


def make_fixed_steps(step: DecoderStep, cache: KeyValueCache, sampling: Sampling) -> FixedSteps:
    """Takes the place of `EagerSteps`."""
    n_positions = round_up(sampling.n_positions, BUCKET)
    larger = KeyValueCache(
        *(part.new_zeros(*part.shape[:3], n_positions, part.shape[4]) for part in (cache.keys, cache.values))
    )
    return FixedSteps(step, larger, sampling, None)
