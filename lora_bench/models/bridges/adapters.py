"""An adapter's files under transformers' names or under audiocraft's (its attention split into q, k, v).

Both backends save adapters under transformers' names; audiocraft's names are for other programs that put an
adapter on audiocraft's `LMModel`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from lora_bench.artifacts import ADAPTER_CONFIG, ADAPTER_PROVENANCE, ADAPTER_WEIGHTS
from lora_bench.errors import ModelError
from lora_bench.models.bridges.tensors import name_in_audiocraft, name_in_transformers
from lora_bench.spec.targets import AUDIOCRAFT_STEMS
from lora_bench.store import read_json, write_json

PREFIX = "base_model.model."  # that PEFT puts before every name
ADAPTED = ".lora_"  # between a module's name and its adapter's parts
BASE_CLASSES = {
    "transformers": ("MusicgenForConditionalGeneration", "transformers.models.musicgen.modeling_musicgen"),
    "audiocraft": ("LMModel", "audiocraft.models.lm"),
}

Library = Literal["transformers", "audiocraft"]


def is_adapter(folder: Path) -> bool:
    """Return whether PEFT wrote the folder."""
    return (folder / ADAPTER_CONFIG).is_file()


def is_audiocraft_adapter(folder: Path) -> bool:
    """Return whether an adapter's weights have audiocraft's names; damaged files are reported when they are loaded."""
    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as stored:
            names = list(stored.keys())
    except (OSError, SafetensorError):
        return False
    return any(name.removeprefix(PREFIX).startswith(AUDIOCRAFT_STEMS) for name in names)


def rename_adapter(source: Path, target: Path, library: Library, weights_hash: str | None = None) -> Path:
    """Write an adapter's files under a library's names.

    Args:
        source: an adapter of the other library (or of the same, then it is copied).
        target: a folder that is made.
        library: whose names to use.
        weights_hash: of the model that the adapter is for from now on; None keeps the one in its notes.

    Returns:
        `target`.

    Raises:
        ModelError: damaged files, or names of neither library.
    """
    if is_audiocraft_adapter(source) == (library == "audiocraft"):
        rename: Callable[[str], str] = str
    else:
        rename = name_in_audiocraft if library == "audiocraft" else name_in_transformers
    try:
        config: dict[str, Any] = read_json(source / ADAPTER_CONFIG)
        if config.get("peft_type") != "LORA" or config.get("modules_to_save"):
            kind = "full" if config.get("modules_to_save") else str(config.get("peft_type")).lower()
            raise ModelError(
                f"{source}: an adapter of kind {kind} has no form for {library}; only LoRA's kinds can be renamed. "
                "Merge it into the model instead: lora-bench convert MODEL --adapter ADAPTER"
            )
        weights = load_file(source / ADAPTER_WEIGHTS)
        renamed = {PREFIX + rename(name.removeprefix(PREFIX)): tensor for name, tensor in weights.items()}
    except (OSError, KeyError, TypeError, SafetensorError) as error:
        raise ModelError(
            f"{source}: the adapter cannot be renamed ({error!r}); expected one of a MusicGen decoder's layers, as "
            "PEFT writes it"
        ) from error
    # PEFT shortens them to ends of names that are unique in one library, so whole names are given
    adapted = {name.removeprefix(PREFIX).rpartition(ADAPTED)[0] for name in renamed}
    config["target_modules"] = sorted(adapted)
    base_class, module = BASE_CLASSES[library]
    config["auto_mapping"] = {"base_model_class": base_class, "parent_library": module}
    target.mkdir(parents=True, exist_ok=True)
    save_file(renamed, target / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    write_json(target / ADAPTER_CONFIG, config)
    if (source / ADAPTER_PROVENANCE).is_file():
        notes: dict[str, Any] = read_json(source / ADAPTER_PROVENANCE)
        write_json(
            target / ADAPTER_PROVENANCE, notes | ({"weights_hash": weights_hash} if weights_hash else {})
        )
    return target
