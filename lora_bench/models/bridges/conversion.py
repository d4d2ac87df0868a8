"""Convert a folder: a model or an adapter into the other library's form, or a model with an adapter folded in."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from transformers import (
    EncodecFeatureExtractor,
    MusicgenForConditionalGeneration,
    MusicgenProcessor,
    PreTrainedTokenizerBase,
)

from lora_bench.errors import UsageError
from lora_bench.models.adapter_strength import blend
from lora_bench.models.bridges.adapters import Library, is_adapter, is_audiocraft_adapter, rename_adapter
from lora_bench.models.bridges.exports import find_audiocraft_files, read_parts, write_export
from lora_bench.models.bridges.parts import put_together, require_cross_attention, take_apart
from lora_bench.models.identity import identify_folder, identify_parts
from lora_bench.models.lora import check_adapter, load_adapter
from lora_bench.models.model_files import find_model_folder
from lora_bench.models.model_info import set_token_ids
from lora_bench.models.network_parts import Network, load_network
from lora_bench.models.quiet import quiet_transformers
from lora_bench.spec.schema import ModelSpec
from lora_bench.store import make_folder

# as Meta published them for MusicGen
SAMPLING = {"do_sample": True, "top_k": 250, "guidance_scale": 3.0}
# they need torchaudio to be read or made
MELODY_PROCESSOR = ("preprocessor_config.json", "processor_config.json")
NOTES = "pocket.json"  # says whether the weights are trained


def convert(
    source: str, folder: Path, *, library: Library | None, adapter: Path | None, base: str | None
) -> list[Path]:
    """Write `folder` whole or not at all.

    Args:
        source: a model as a spec names it, or an adapter's folder.
        folder: must not exist, or be empty.
        library: whose form to write; None is the other library's.
        adapter: for a model: folded into its weights.
        base: for an adapter: the model that it is for from now on.

    Returns:
        The files, sorted by name.

    Raises:
        UsageError: the folder is not empty, or the options do not fit the source.
        ModelError: the source cannot be read, is not supported, or the adapter is another model's.
        StoreError: the disk is full.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"--to {folder}: already exists and is not empty; choose a new folder")
    place = Path(source).expanduser()
    if is_adapter(place):
        if adapter is not None:
            raise UsageError(
                f"--adapter: {source} is an adapter itself; give the model first, then --adapter"
            )
        weights_hash = None if base is None else _hash_model(base)
        target = library or ("transformers" if is_audiocraft_adapter(place) else "audiocraft")
        make_folder(folder, lambda draft: rename_adapter(place, draft, target, weights_hash))
    else:
        if base is not None:
            raise UsageError(f"--base: {source} is a model; only an adapter is for a model")
        _convert_model(source, folder, library, adapter)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _convert_model(source: str, folder: Path, library: Library | None, adapter: Path | None) -> None:
    opened = _open_model(ModelSpec(id=source), adapter)
    target = library or ("audiocraft" if opened.form == "transformers" else "transformers")
    make_folder(folder, lambda draft: _write_model(opened, target, draft))


def write_merged(model: ModelSpec, adapter: Path, folder: Path, strength: float = 1.0) -> None:
    """Write a model of either form with an adapter in its weights, in transformers' form, into an existing folder.

    The weights are float32: half precision would lose part of the update.

    Args:
        model: the base model.
        adapter: its folder.
        folder: gets the weights.
        strength: of the adapter, as `generation.adapter_scale`.

    Raises:
        ModelError: the model is unavailable, or the adapter is another model's.
    """
    _write_model(_open_model(model, adapter, strength), "transformers", folder)


@dataclass(frozen=True)
class _OpenModel:
    """A model in memory, its folder, and the library whose form the folder has."""

    network: Network
    tokenizer: PreTrainedTokenizerBase
    name: str
    place: Path
    form: Library


def _open_model(spec: ModelSpec, adapter: Path | None, strength: float = 1.0) -> _OpenModel:
    files = find_audiocraft_files(spec)
    if files is None:
        place = find_model_folder(spec).path
        network, tokenizer = load_network(place, spec.id)
        identity = identify_folder(place, spec.id, network)
    else:
        parts, used = read_parts(files)
        place, network, tokenizer = files.folder, put_together(parts, spec.id), parts.tokenizer
        identity = identify_parts(parts, used)
    set_token_ids(network)
    if adapter is not None:
        check_adapter(adapter, model_name=spec.id, weights_hash=identity.weights)
        network = _fold_in(network, adapter, strength)
    form: Library = "transformers" if files is None else "audiocraft"
    return _OpenModel(network, tokenizer, spec.id, place, form)


def _write_model(model: _OpenModel, library: Library, folder: Path) -> None:
    if library == "audiocraft":
        write_export(take_apart(require_cross_attention(model.network, model.name), model.tokenizer), folder)
        copied = (NOTES,)
    else:
        copied = (NOTES, *_write_transformers(model.network, model.tokenizer, folder))
    for name in copied:
        if (model.place / name).is_file():
            shutil.copyfile(model.place / name, folder / name)


def _hash_model(source: str) -> str:
    spec = ModelSpec(id=source)
    files = find_audiocraft_files(spec)
    if files is None:
        return identify_folder(find_model_folder(spec).path, spec.id).weights
    return identify_parts(*read_parts(files)).weights


def _fold_in(network: Network, adapter: Path, strength: float) -> Network:
    """Fold an adapter, under either library's names, into the network's weights."""
    plain = {} if strength == 1.0 else {name: each.clone() for name, each in network.state_dict().items()}
    with tempfile.TemporaryDirectory() as parent, quiet_transformers():
        if is_audiocraft_adapter(adapter):
            adapter = rename_adapter(adapter, Path(parent) / "adapter", "transformers")
        merged: Any = load_adapter(cast("Any", network), adapter).merge_and_unload()
    adapted = merged.state_dict()
    for name, weights in plain.items():
        if weights.is_floating_point():
            adapted[name].copy_(blend(weights, adapted[name], strength))
    return merged


def _write_transformers(
    network: Network, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> tuple[str, ...]:
    """Write a model, and return names of files that the source's folder has more to give."""
    generation: Any = network.generation_config
    for name, value in SAMPLING.items():
        if getattr(generation, name, None) in (None, False, 1.0, 50):  # transformers' own defaults
            setattr(generation, name, value)
    config: Any = network.config
    extractor = EncodecFeatureExtractor(
        feature_size=config.decoder.audio_channels,
        sampling_rate=config.audio_encoder.sampling_rate,
        padding_side="left",
    )
    with quiet_transformers():
        network.save_pretrained(folder)
        tokenizer.save_pretrained(str(folder))
        if not isinstance(network, MusicgenForConditionalGeneration):
            return MELODY_PROCESSOR
        extractor.save_pretrained(folder)
        MusicgenProcessor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)
    return ()
