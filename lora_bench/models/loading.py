"""Load the model of a spec: the embedded model, a local folder or a hub id."""

from __future__ import annotations

from functools import partial
from typing import Any

from lora_bench.models.audiocraft_library import require_audiocraft
from lora_bench.models.base import MusicModel
from lora_bench.models.device import choose_device, choose_dtype
from lora_bench.models.identity import identify_folder
from lora_bench.models.model_files import find_model_folder, hash_weights
from lora_bench.models.model_info import describe_network, is_trained, set_token_ids
from lora_bench.models.network_parts import load_encoder, load_without_encoders
from lora_bench.models.transformers_melody import TransformersMelody
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import ModelSpec


def load_model(spec: ModelSpec, *, device: str = "auto") -> MusicModel:
    """Load a frozen model without output; on transformers' classes text encoder and codec load at their first use.

    Args:
        spec: id, revision, backend, arithmetic.
        device: `auto` (a GPU if there is one), `cpu`, `cuda` or `cuda:<n>`.

    Raises:
        ModelError: not found, not a MusicGen, damaged, or a backend that is not installed.
        ResourceError: the device does not exist.
    """
    place = choose_device(device)
    if spec.backend == "audiocraft":
        require_audiocraft()
        from lora_bench.models.audiocraft_backend.loading import load_audiocraft_model

        return load_audiocraft_model(spec, place)
    folder = find_model_folder(spec)
    network, tokenizer = load_without_encoders(folder.path, spec.id)
    set_token_ids(network)
    identity = identify_folder(folder.path, spec.id, network)
    info = describe_network(
        network.config,
        name=spec.id,
        weights_hash=identity.weights,
        codec_hash=identity.codec,
        trained=is_trained(folder.path),
    )
    kind: Any = TransformersMelody if network.config.model_type == "musicgen_melody" else TransformersMusicGen
    return kind(
        network,
        tokenizer,
        info,
        device=place,
        dtype=choose_dtype(spec.dtype, place),
        hub_id=folder.hub_id,
        load_encoder=partial(load_encoder, folder.path, spec.id, hash_weights(folder.path)),
    )
