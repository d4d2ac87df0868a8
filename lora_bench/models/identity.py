"""The identity of a model: its loaded numbers and the settings for them, not its files.

A model's weights come in one file or several, as safetensors or pickles, in half precision, under older names, next to
unused files, or in audiocraft's form.  All forms load as the same tensors under the same names, and the identity is
the hash of every name, shape, and value **in float32**.  Every form is loaded in float32 before a run rounds it to its
own `dtype`.  A float16 file therefore equals a float32 file with the same numbers, and differs from the float32 file
that it was rounded from.

Tensors are hashed one after the other, and parts that the caller has not loaded are read one at a time.  The result is
cached under the hash of the files (see `hash_cache.py`), so that a model is hashed once.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lora_bench.models import hash_cache
from lora_bench.models.bridges.parts import MusicGenParts, drop_identity
from lora_bench.models.model_files import hash_all_weights, hash_files, hash_weights, note_former_hashes
from lora_bench.models.network_parts import ENCODERS, PARTS, read_network
from lora_bench.store import hash_json

VERSION = 1  # raise it when the same model gets another hash
# computed tensors, and statistics of the codebooks' training: neither changes a result
_UNREAD = re.compile(r"(^|\.)embed_positions\.|\.codebook\.(inited|cluster_size|embed_avg)$")
# settings that the shapes of the tensors do not show
_SETTINGS = {
    "text_encoder": (
        "num_heads", "feed_forward_proj", "layer_norm_epsilon", "relative_attention_num_buckets",
        "relative_attention_max_distance",
    ),
    "audio_encoder": (
        "sampling_rate", "upsampling_ratios", "norm_type", "use_causal_conv", "pad_mode", "trim_right_ratio",
        "dilation_growth_rate", "num_residual_layers", "use_conv_shortcut", "normalize", "chunk_length_s",
    ),
    "decoder": (
        "num_attention_heads", "activation_function", "scale_embedding", "audio_channels", "num_codebooks",
    ),
    "melody": ("num_chroma", "chroma_length"),
}  # fmt: skip


@dataclass(frozen=True)
class ModelIdentity:
    """Hashes of the whole model, and of its codec alone, which decides whether `encodec` scores are comparable."""

    weights: str
    codec: str


def identify_folder(folder: Path, name: str, network: Any = None) -> ModelIdentity:
    """Compute the identity of a model in transformers' form.

    Args:
        folder: its files.
        name: of the model, for errors.
        network: the loaded model; missing parts are read from the folder, one at a time.

    Raises:
        ModelError: the files are damaged or incomplete.
    """
    key = hash_weights(folder)

    def read_parts() -> Iterator[tuple[str, Any, Mapping[str, Tensor]]]:
        for part in (*ENCODERS, "decoder"):
            group = (part,) if part in ENCODERS else tuple(one for one in PARTS if one not in ENCODERS)
            whole = network
            if getattr(whole, part, None) is None:
                whole = read_network(folder, name, group)[0]
            state = cast("nn.Module", whole).state_dict()
            kept = {name: tensor for name, tensor in state.items() if name.startswith(group)}
            yield part, getattr(whole.config, part), drop_identity(kept)
            if part == "decoder" and hasattr(whole.config, "chroma_length"):
                yield "melody", whole.config, {}

    return _identify(key, (key, hash_all_weights(folder)), read_parts())


def identify_parts(parts: MusicGenParts, files: Iterable[Path]) -> ModelIdentity:
    """Compute the identity of a model in audiocraft's form, equal to that of the same model in transformers' form.

    `files` hold its weights.
    """
    key = hash_files(files)
    text, codec = cast("nn.Module", parts.text_encoder).state_dict(), parts.codec_state
    states = {
        "text_encoder": {f"text_encoder.{name}": tensor for name, tensor in text.items()},
        "audio_encoder": {f"audio_encoder.{name}": tensor for name, tensor in codec.items()},
        "decoder": drop_identity(parts.decoder_state),
    }
    found = ((part, getattr(parts.config, part), state) for part, state in states.items())
    return _identify(key, (key,), found)


def _identify(
    key: str, former: Iterable[str], parts: Iterable[tuple[str, Any, Mapping[str, Tensor]]]
) -> ModelIdentity:
    facts = ["model", VERSION, key]
    known = hash_cache.recall(facts)
    if known is None:
        found = {part: [_digest(state), _settings(part, config)] for part, config, state in parts}
        weights, codec = (hash_json([VERSION, one], length=64) for one in (found, found["audio_encoder"]))
        known = f"{weights} {codec}"
        hash_cache.remember(facts, known)
    identity = ModelIdentity(*known.split())
    note_former_hashes(identity.weights, former)
    return identity


def _settings(part: str, config: object) -> dict[str, object]:
    return {name: getattr(config, name, None) for name in _SETTINGS[part]}


def _digest(state: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(state):
        if not _UNREAD.search(name):
            values = state[name].detach().to("cpu", torch.float32).contiguous().reshape(-1)
            digest.update(f"{name}\0{list(state[name].shape)}\0".encode())
            digest.update(values.numpy().data)
    return digest.hexdigest()
