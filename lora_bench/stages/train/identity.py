"""Identity of an adapter: its key, and the result of a finished training with that key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from lora_bench.artifacts import ADAPTER_PROVENANCE, ADAPTER_WEIGHTS, LossPoint, TrainResult
from lora_bench.errors import StoreError
from lora_bench.models.base import MusicModel
from lora_bench.models.token_set import TokenSet
from lora_bench.spec.schema import LoraSpec, TrainSpec
from lora_bench.store import JsonObject, hash_json, read_json, to_jsonable

FORMAT = 1  # raise it when a checkpoint of an older version must not be resumed


def adapter_key(tokens: TokenSet, model: MusicModel, lora: LoraSpec, train: TrainSpec, seed: int) -> str:
    """Return a hash of everything that an adapter's weights depend on, including the decoder's arithmetic.

    `model.dtype: auto` gives float32 on one machine and bfloat16 on another: these are two adapters.
    """
    return _make_key(tokens.key, model.info.weights_hash, model, lora, train, seed)


def former_adapter_keys(
    tokens: Mapping[str, str], model: MusicModel, lora: LoraSpec, train: TrainSpec, seed: int
) -> tuple[str, ...]:
    """Return the keys of earlier versions, which identified a model by its files.

    Args:
        tokens: keys of the token set, by what those versions called the model (see `former_hashes`).
        model: as it is loaded now.
        lora: the adapter.
        train: how it is trained.
        seed: of the training.
    """
    return tuple(_make_key(key, weights, model, lora, train, seed) for weights, key in tokens.items())


def _make_key(
    tokens_key: str, weights_hash: str, model: MusicModel, lora: LoraSpec, train: TrainSpec, seed: int
) -> str:
    facts = {"format": FORMAT, "tokens": tokens_key, "weights": weights_hash, "dtype": str(model.dtype)}
    return hash_json({**facts, "lora": lora.spell(), "train": without_effect_free(train), "seed": seed})


def without_effect_free(train: TrainSpec) -> TrainSpec:
    """Return the settings, with defaults for those that do not change the result."""
    default = TrainSpec.model_fields["checkpoint_every"].default
    return train.model_copy(update={"checkpoint_every": default, "keep": None})


def find_finished(adapter: Path, *keys: str) -> TrainResult | None:
    """Return the result of a complete adapter; None if it is not there, or has none of the keys."""
    try:
        notes = read_json(adapter / ADAPTER_PROVENANCE)
    except StoreError:
        return None
    if notes.get("run_key") not in keys or not (adapter / ADAPTER_WEIGHTS).is_file():
        return None
    result = notes["result"]
    return TrainResult(
        adapter=adapter,
        trainable_params=result["trainable_params"],
        matched_modules=result["matched_modules"],
        curve=tuple(LossPoint(**point) for point in result["curve"]),
        wall_s=result["wall_s"],
        peak_memory_gib=result["peak_memory_gib"],
        step=result.get("step"),
        gradient_checkpointing=result.get("gradient_checkpointing"),
    )


def write_result(result: TrainResult) -> JsonObject:
    """Return a result as JSON; without a step if it is that of the last one, and without what is unknown."""
    plain = to_jsonable(result)
    optional = {"step", "gradient_checkpointing"}
    return {name: value for name, value in plain.items() if name not in optional or value is not None}
