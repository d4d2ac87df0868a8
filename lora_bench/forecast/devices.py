"""The device that a plan's trials will run on, without torch."""

from __future__ import annotations

from lora_bench.forecast.history import History
from lora_bench.machine.gpus import CPU, UNKNOWN, list_names


def find_device(n_gpus: float, history: History) -> str:
    """Return the name of the device for trials with `resources.gpu` of `n_gpus`.

    The GPUs of this machine have one name, or its earlier trials and probes do where the driver lists none; else the
    name is unknown, and no record counts.
    """
    if n_gpus == 0:
        return CPU
    names = set(list_names()) or {record.device for record in history.records if record.device != CPU}
    return names.pop() if len(names) == 1 else UNKNOWN
