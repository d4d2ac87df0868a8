"""Forecast of a trial before it runs: adapter, memory, disk and time.

shapes.py        a model's layers, sizes and audio format, from its config.json or published sizes
frozen_parts.py  numbers in its text encoder and its codec
adapters.py      LoRA targets on such a shape: matched modules, trainable parameters, bytes
budgets.py       the size whose trainable parameters come nearest to `lora.budget`
footprint.py     peak memory of training from such a shape, where nothing was trained yet
checkpointing.py what `train.gradient_checkpointing: auto` comes to on a device
history.py       what earlier trials on this machine took, read from their files
devices.py       the device that a plan's trials run on
cards.py         nominal figures of GPUs, from data sheets
stage_memory.py  peak memory of a trial's stages on a GPU
roofline.py      time of its GPU work from a data sheet
scaling.py       the records most like a trial, and a line through their figures
remaining.py     what is finished of a trial already
cached_data.py   disk of the cache
outcomes.py      how far earlier forecasts were off
adapter_files.py the files of an adapter that exists already
obstacles.py     a model that no backend here can run
prediction.py    all of it for one trial, with where each figure comes from
held_out.py      the number of reference tracks that a plan leads to, and whether it allows a verdict
power.py         power of the planned verdicts, from the variances of an earlier run
detectable.py    the smallest difference that a design finds, and designs that find a stated one
probe.py         a short measurement where there is no earlier trial (it imports torch)
"""

from __future__ import annotations

from lora_bench.forecast.cached_data import forecast_cache
from lora_bench.forecast.devices import find_device
from lora_bench.forecast.history import History, read_history
from lora_bench.forecast.obstacles import find_obstacle
from lora_bench.forecast.outcomes import Outcome, describe_accuracy, keep_outcomes, read_outcomes
from lora_bench.forecast.prediction import Forecaster, Prediction
from lora_bench.forecast.stage_memory import StagePeaks

__all__ = [
    "Forecaster",
    "History",
    "Outcome",
    "Prediction",
    "StagePeaks",
    "describe_accuracy",
    "find_device",
    "find_obstacle",
    "forecast_cache",
    "keep_outcomes",
    "read_history",
    "read_outcomes",
]
