"""Load a transformers MusicGen (or MusicGen Melody) whole, or without text encoder and codec until they are needed.

Training needs neither: codes and text states are cached.  In published MusicGen small they are 0.6 of 2.2 GiB, which
stay free on a GPU.  On a CPU the gain is smaller: safetensors maps its files, and unused weights stay on the disk.
transformers' own `from_pretrained` reads the parts, so that every form of a checkpoint (several files, pickles, older
names) gives the same tensors as when it is read whole.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoTokenizer,
    MusicgenConfig,
    MusicgenForConditionalGeneration,
    MusicgenMelodyConfig,
    MusicgenMelodyForConditionalGeneration,
)

from lora_bench.errors import ModelError
from lora_bench.models.model_files import find_weight_files, hash_weights
from lora_bench.models.quiet import quiet_transformers

ENCODERS = ("text_encoder", "audio_encoder")
WITH_CONFIG = (*ENCODERS, "decoder")
PARTS = (*WITH_CONFIG, "enc_to_dec_proj", "audio_enc_to_dec_proj")
Network = MusicgenForConditionalGeneration | MusicgenMelodyForConditionalGeneration


class _Absent(nn.Module):
    """Stands for a part that is not read, while the model around it is built."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def get_output_embeddings(self) -> None:
        """Return None: it has no weights."""

    def forward(self, encoder_hidden_states: Any = None) -> None:
        """Is not called; the library asks a decoder for this argument."""


@dataclass(frozen=True)
class _Layout:
    """Names of a whole model's tensors, and of those that are one tensor under two names."""

    names: tuple[str, ...]
    tied: dict[str, str]


_LAYOUTS: dict[tuple[type, str], _Layout] = {}
"""By class and config; building a whole model takes most of the time of reading a part of a small one."""
_COMPLETE: set[str] = set()
"""Hashes of weights whose encoders this process has read without a lack."""


class _Partial:
    """A model on torch's meta device, where it takes no memory; only its kept parts are built and filled.

    Args:
        config: of the whole model.
        kept: names of the parts; the others are None.
    """

    def __init__(self, config: MusicgenConfig | MusicgenMelodyConfig, *, kept: Collection[str]) -> None:
        whole = cast("Any", self)
        key = (type(self), config.to_json_string(use_diff=False))
        if key not in _LAYOUTS:
            cast("Any", super()).__init__(config)
            _LAYOUTS[key] = _Layout(tuple(whole.state_dict()), dict(whole.all_tied_weights_keys))
        else:
            absent = {part: _Absent(getattr(config, part)) for part in WITH_CONFIG if part not in kept}
            cast("Any", super()).__init__(config, **absent)
        self.tied = dict(_LAYOUTS[key].tied)
        self.left_out = [name for name in _LAYOUTS[key].names if _part_of(name) not in kept]
        for part in PARTS:
            if part not in kept and hasattr(self, part):
                setattr(self, part, None)
        whole.all_tied_weights_keys = {
            name: source for name, source in self.tied.items() if _part_of(name) in kept
        }


class _PartialMusicgen(_Partial, MusicgenForConditionalGeneration): ...


class _PartialMelody(_Partial, MusicgenMelodyForConditionalGeneration): ...


# config, class while parts are read, class afterwards
_KINDS: dict[str, tuple[Any, Any, Any]] = {
    "musicgen": (MusicgenConfig, _PartialMusicgen, MusicgenForConditionalGeneration),
    "musicgen_melody": (MusicgenMelodyConfig, _PartialMelody, MusicgenMelodyForConditionalGeneration),
}


def _part_of(name: str) -> str:
    return name.partition(".")[0]


def load_network(folder: Path, name: str) -> tuple[Network, Any]:
    """Load a whole transformers MusicGen in float32 and its tokenizer.

    Raises:
        ModelError: not a MusicGen, damaged or incomplete.
    """
    return read_network(folder, name, PARTS)[0], _read_tokenizer(folder, name)


def load_without_encoders(folder: Path, name: str) -> tuple[Network, Any]:
    """Load a MusicGen whose `text_encoder` and `audio_encoder` are None; check that their weights exist.

    Raises:
        ModelError: not a MusicGen, damaged or incomplete.
    """
    network, absent = read_network(folder, name, [part for part in PARTS if part not in ENCODERS])
    if absent and (weights_hash := hash_weights(folder)) not in _COMPLETE:
        # these names seem to be missing; only reading the parts shows whether they are
        for part in sorted({_part_of(key) for key in absent}):
            read_network(folder, name, [part])
        _COMPLETE.add(weights_hash)
    return network, _read_tokenizer(folder, name)


def load_encoder(folder: Path, name: str, weights_hash: str, part: str) -> nn.Module:
    """Load one of `ENCODERS` in float32, in eval mode.

    Args:
        folder: unchanged since the rest of the model was loaded.
        name: of the model, for errors.
        weights_hash: of the rest of the model.
        part: its name.

    Raises:
        ModelError: the files are gone, have changed, or are damaged.
    """
    try:
        is_same = hash_weights(folder) == weights_hash
    except (OSError, ModelError) as error:
        raise ModelError(
            f"model.id: {name}: its {part} is to be read now, but {folder} cannot be ({error}); leave a "
            "model's files in place while it is used"
        ) from error
    if not is_same:
        raise ModelError(
            f"model.id: {name}: the files in {folder} have changed since the decoder was loaded, so its {part} "
            "would be another model's; run again"
        )
    return cast("nn.Module", getattr(read_network(folder, name, [part])[0], part))


def read_network(folder: Path, name: str, kept: Collection[str]) -> tuple[Network, list[str]]:
    """Read a network with some parts, and list tensors of the other parts that the files seem to lack.

    Raises:
        ModelError: not a MusicGen, damaged or incomplete.
    """
    with quiet_transformers():
        try:
            kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
            if kind not in _KINDS:
                expected = " or ".join(repr(each) for each in _KINDS)
                raise ModelError(f"model.id: {name}: a model of type {kind!r}, expected {expected}")
            config_class, partial_class, whole_class = _KINDS[kind]
            # a pair with `output_loading_info`, which the annotation does not say
            loaded: Any = partial_class.from_pretrained(
                folder,
                config=config_class.from_pretrained(folder, local_files_only=True),
                kept=kept,
                **find_weight_files(folder).options,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
            )
        except (
            OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError, pickle.UnpicklingError,
        ) as error:  # fmt: skip
            raise _cannot_load(folder, name, error) from error
    network, notes = loaded
    missing = sorted(notes["missing_keys"])
    if missing:
        raise ModelError(
            f"model.id: {name}: the weights in {folder} lack {len(missing)} tensors, first "
            f"{missing[0]}; they would be random: fetch the model again"
        )
    tied = {*network.tied, *network.tied.values()}  # one of two names is enough
    absent = sorted({*network.left_out} - {*notes["unexpected_keys"]} - tied)
    network.all_tied_weights_keys = network.tied
    del network.tied, network.left_out
    network.__class__ = whole_class  # PEFT writes the class's name next to an adapter
    return network, absent


def _read_tokenizer(folder: Path, name: str) -> Any:
    with quiet_transformers():
        try:
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            raise _cannot_load(folder, name, error) from error


def _cannot_load(folder: Path, name: str, error: Exception) -> ModelError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ModelError(
        f"model.id: {name}: {folder} cannot be loaded ({lines[0]}); expected config, weights and "
        "tokenizer of a MusicGen as transformers writes them"
    )
