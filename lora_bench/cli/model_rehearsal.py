"""`lora-bench doctor --model ID`: load a model offline, and report its properties or what is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.cli.findings import GIB, Finding
from lora_bench.errors import LoraBenchError
from lora_bench.forecast.shapes import find_shape
from lora_bench.spec.schema import ModelSpec

if TYPE_CHECKING:
    from lora_bench.models.bridges.exports import AudiocraftFiles

TOPIC = "model"
PUBLISHED_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "spiece.model",
    "model*.safetensors",
)
_LICENCE = re.compile(r"^license:\s*(\S+)", re.MULTILINE)


def rehearse_model(model_id: str) -> Iterator[Finding]:
    """Return findings about one model, without a download.

    Args:
        model_id: as in `model.id`: `pocket`, a folder, or a cached hub id.
    """
    from lora_bench.models.bridges.exports import find_audiocraft_files
    from lora_bench.models.model_files import find_model_folder

    spec = ModelSpec(id=model_id)
    try:
        export = find_audiocraft_files(spec)
        folder = find_model_folder(spec).path if export is None else export.folder
    except LoraBenchError as error:
        yield Finding(TOPIC, model_id, False, " ".join(str(error).split()), essential=True)
        yield from _describe_fetch(spec)
        return
    yield Finding(TOPIC, "folder", None, str(folder))
    yield Finding(TOPIC, "licence", None, find_licence(folder))
    try:
        if export is None:
            yield from _load_folder(spec, folder)
        else:
            yield from _load_export(export)
    except LoraBenchError as error:
        yield Finding(TOPIC, "loading", False, " ".join(str(error).split()), essential=True)


def find_licence(folder: Path) -> str:
    """Return the licence in a model's card; `unknown` without a card or a licence."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "unknown (no README.md)"
    found = _LICENCE.search(card.split("\n---", 1)[0]) if card.startswith("---") else None
    return found[1].strip("'\"") if found is not None else "unknown (README.md states none)"


def _load_folder(spec: ModelSpec, folder: Path) -> Iterator[Finding]:
    from lora_bench.models.identity import identify_folder
    from lora_bench.models.model_files import find_weight_files
    from lora_bench.models.model_info import describe_network, set_token_ids
    from lora_bench.models.network_parts import load_network

    files = find_weight_files(folder).files
    n_bytes = sum(path.stat().st_size for path in files)
    named = files[0].name if len(files) == 1 else f"{files[0].name} and {len(files) - 1} more"
    yield Finding(TOPIC, "weights", None, f"{named}, {n_bytes / GIB:.2f} GiB, {_stored_types(files)}")
    network, _ = load_network(folder, spec.id)
    set_token_ids(network)
    identity = identify_folder(folder, spec.id, network)
    describe_network(network.config, name=spec.id, weights_hash=identity.weights, trained=True)
    counts = {
        part: sum(p.numel() for name, p in network.named_parameters() if name.startswith(part))
        for part in ("decoder", "text_encoder", "audio_encoder")
    }
    yield from _describe_loaded(counts, identity.weights)


def _load_export(files: AudiocraftFiles) -> Iterator[Finding]:
    from lora_bench.models.bridges.exports import read_parts
    from lora_bench.models.identity import identify_parts

    parts, used = read_parts(files)
    n_bytes = sum(path.stat().st_size for path in used)
    yield Finding(
        TOPIC, "weights", None, f"audiocraft's {files.lm.name}, {n_bytes / GIB:.2f} GiB with codec and text"
    )
    counts = {
        "decoder": sum(tensor.numel() for tensor in parts.decoder_state.values()),
        "text_encoder": sum(tensor.numel() for tensor in parts.text_encoder.parameters()),
        "audio_encoder": sum(tensor.numel() for tensor in parts.codec_state.values()),
    }
    yield from _describe_loaded(counts, identify_parts(parts, used).weights)


def _describe_loaded(counts: Mapping[str, int], weights_hash: str) -> Iterator[Finding]:
    parts = ", ".join(f"{part.replace('_', ' ')} {n:,}" for part, n in counts.items())
    yield Finding(TOPIC, "parameters", None, f"{sum(counts.values()):,} ({parts})")
    yield Finding(TOPIC, "identity", None, weights_hash)
    yield Finding(TOPIC, "loading", True, "loads offline, as in a run")


def _stored_types(files: tuple[Path, ...]) -> str:
    """Return the types of the tensors in safetensors files; pickles are not opened."""
    from safetensors import safe_open

    types: set[str] = set()
    for path in files:
        if path.suffix == ".safetensors":
            try:
                with safe_open(path, framework="pt") as stored:
                    types |= {stored.get_slice(name).get_dtype() for name in stored.keys()}  # noqa: SIM118
            except Exception as error:  # noqa: BLE001  (loading says what is wrong; safetensors raises a class of its own)
                return f"unreadable ({error})"
    return ", ".join(sorted(types)) or "pickled"


def _describe_fetch(spec: ModelSpec) -> Iterator[Finding]:
    """Describe the download of a hub model, as far as it is known without a network."""
    if spec.id.count("/") != 1 or spec.id.startswith((".", "/", "~")):
        return
    shape = find_shape(spec)
    size = "size unknown without a network"
    if shape is not None:
        n_decoder = sum(linear.n_in * linear.n_out for linear in shape.linears)
        size = f"about {4 * (n_decoder + shape.n_frozen) / GIB:.1f} GiB in float32, half in float16"
    detail = f"{', '.join(PUBLISHED_FILES)}; {size}; this command does not use the network"
    yield Finding(TOPIC, "download", None, detail)
    yield Finding(TOPIC, "licence", None, "unknown (its card is not on this machine)")
