"""One folder to another: a model or an adapter in the form of the other library, an adapter folded in."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, cast

from transformers import (
    EncodecFeatureExtractor,
    MusicgenForConditionalGeneration,
    MusicgenProcessor,
    PreTrainedTokenizerBase,
)

from lora_bench.errors import UsageError
from lora_bench.models.bridges.adapters import Library, is_adapter, is_audiocraft_adapter, rename_adapter
from lora_bench.models.bridges.exports import find_audiocraft_files, read_parts, write_export
from lora_bench.models.bridges.parts import put_together, take_apart
from lora_bench.models.loading import load_network, set_token_ids
from lora_bench.models.lora import check_adapter, load_adapter
from lora_bench.models.model_files import find_model_folder, hash_files, hash_weights
from lora_bench.models.quiet import quiet_transformers
from lora_bench.spec.schema import ModelSpec
from lora_bench.store import make_folder

# as Meta published them for MusicGen
SAMPLING = {"do_sample": True, "top_k": 250, "guidance_scale": 3.0}
NOTES = "pocket.json"  # says whether the weights are trained


def convert(
    source: str, folder: Path, *, library: Library | None, adapter: Path | None, base: str | None
) -> list[Path]:
    """Write `folder` whole or not at all.

    Args:
        source: a model as a spec names it, or an adapter's folder.
        folder: must not be there, or be empty.
        library: whose form to write; None is the other one's than the source's.
        adapter: of a model: folded into its weights.
        base: of an adapter: the model that it is for from now on.

    Returns:
        The files, by name.

    Raises:
        UsageError: the folder holds something, or the options do not fit the source.
        ModelError: the source cannot be read, is not supported, or the adapter is another model's.
        StoreError: the disk is full.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"--to {folder}: is there already and not empty; give a folder that is not there yet"
        )
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
    network, tokenizer, place, weights_hash, found = _open_model(source)
    target = library or ("audiocraft" if found == "transformers" else "transformers")
    if adapter is not None:
        check_adapter(adapter, model_name=source, weights_hash=weights_hash)
        network = _fold_in(network, adapter)

    def fill(draft: Path) -> None:
        if target == "audiocraft":
            write_export(take_apart(network, tokenizer), draft)
        else:
            _write_transformers(network, tokenizer, draft)
        if (place / NOTES).is_file():
            shutil.copyfile(place / NOTES, draft / NOTES)

    make_folder(folder, fill)


def _open_model(
    source: str,
) -> tuple[MusicgenForConditionalGeneration, PreTrainedTokenizerBase, Path, str, Library]:
    """Network, tokenizer, folder, hash and whose form the source has."""
    spec = ModelSpec(id=source)
    files = find_audiocraft_files(spec)
    if files is None:
        folder = find_model_folder(spec).path
        network, tokenizer = load_network(folder, source)
        set_token_ids(network)
        return network, tokenizer, folder, hash_weights(folder), "transformers"
    parts, used = read_parts(files)
    network = put_together(parts, source)
    set_token_ids(network)
    return network, parts.tokenizer, files.folder, hash_files(used), "audiocraft"


def _hash_model(source: str) -> str:
    spec = ModelSpec(id=source)
    files = find_audiocraft_files(spec)
    return hash_weights(find_model_folder(spec).path) if files is None else hash_files(read_parts(files)[1])


def _fold_in(network: MusicgenForConditionalGeneration, adapter: Path) -> MusicgenForConditionalGeneration:
    """The network with an adapter's update in its weights, under either library's names."""
    with tempfile.TemporaryDirectory() as parent, quiet_transformers():
        if is_audiocraft_adapter(adapter):
            adapter = rename_adapter(adapter, Path(parent) / "adapter", "transformers")
        merged: Any = load_adapter(cast("Any", network), adapter).merge_and_unload()
    return merged


def _write_transformers(
    network: MusicgenForConditionalGeneration, tokenizer: PreTrainedTokenizerBase, folder: Path
) -> None:
    generation: Any = network.generation_config
    for name, value in SAMPLING.items():
        if getattr(generation, name, None) in (None, False, 1.0, 50):  # transformers' own defaults
            setattr(generation, name, value)
    rate_hz = cast("Any", network.config).audio_encoder.sampling_rate
    extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=rate_hz, padding_side="left")
    with quiet_transformers():
        network.save_pretrained(folder)
        tokenizer.save_pretrained(str(folder))
        extractor.save_pretrained(folder)
        MusicgenProcessor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)
