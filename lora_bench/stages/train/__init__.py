"""Train a LoRA adapter on a token set; a killed run resumes with the same result, bit for bit.

schedule.py    what a step does, as pure functions of (seed, step): slices, caption dropout, noise, rate
checkpoint.py  one file with everything a run needs to go on
identity.py    the key of an adapter, and its finished result
kept.py        adapters of earlier steps
steps.py       one optimiser step, one measurement on the held-out slices, initial values from training slices
loop.py        the run: where it begins, when it measures and saves, how it ends
"""

from lora_bench.stages.train.identity import adapter_key, find_finished, former_adapter_keys, write_result
from lora_bench.stages.train.kept import KeptAdapters, kept_key
from lora_bench.stages.train.loop import train_adapter

__all__ = [
    "KeptAdapters",
    "adapter_key",
    "find_finished",
    "former_adapter_keys",
    "kept_key",
    "train_adapter",
    "write_result",
]
