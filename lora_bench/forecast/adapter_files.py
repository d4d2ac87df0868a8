"""The files of an adapter that exists already, read without torch: identity, kind, size, fit to a model.

An adapter is a folder as PEFT writes it, or a hub id whose files are fetched once into the hub's cache.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lora_bench.artifacts import ADAPTER_CONFIG, ADAPTER_PROVENANCE, ADAPTER_WEIGHTS
from lora_bench.errors import ModelError, StoreError
from lora_bench.forecast.adapters import AdapterSize, list_trainable
from lora_bench.forecast.shapes import Linear, ModelShape, hub_cache
from lora_bench.spec.kinds import SETTINGS
from lora_bench.spec.schema import LoraSpec
from lora_bench.spec.targets import AUDIOCRAFT_STEMS, EXPANDED_TARGETS, GROUPS, OTHER_GROUPS, find_group
from lora_bench.store import hash_file, hash_json, read_json

ADAPTER_FILES = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
PREFIX = "base_model.model."
MAX_HEADER_BYTES = 100_000_000
MAX_NAMED = 4
_SHARED = "base_model"  # before the projections that all modules of VeRA share
_NO_TARGETS = "dummy-target-modules"  # what PEFT writes where `modules_to_save` are all that is trained
_DECOMPOSING = ("pissa", "olora", "corda", "loftq", "lora_ga", "orthogonal")


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter's files say.

    Attributes:
        kind: as in `lora.kind`.
        rank: None for kinds without one.
        alpha: None for kinds without one, and where it is not stated.
        modules: names of the adapted modules under transformers' names; empty under audiocraft's.
        unknown: names of weights that belong to no module of the model; empty where the model is not known.
        n_params: numbers in the file.
        n_bytes: of the weights' file.
    """

    kind: str
    rank: int | None
    alpha: float | None
    modules: tuple[str, ...]
    unknown: tuple[str, ...]
    n_params: int
    n_bytes: int

    @property
    def matched_modules(self) -> dict[str, int]:
        """Adapted modules by target group."""
        return dict(Counter(find_group(name) or "other" for name in self.modules))

    def size(self) -> AdapterSize:
        """Return the size as a forecast has it."""
        return AdapterSize(self.matched_modules, self.n_params, self.n_bytes)

    def describe_targets(self, shape: ModelShape | None = None) -> str:
        """Return the adapted modules as a target such as `attention`, or the ends of their names."""
        counts = self.matched_modules
        known = Counter(
            find_group(part.name) for part in (list_trainable(shape, LoraSpec(kind="full")) if shape else ())
        )
        if counts and all(known[group] == n for group, n in counts.items()):
            for word, groups in reversed(EXPANDED_TARGETS.items()):
                if {group for group in groups if known[group]} == set(counts):
                    return word
            return "+".join(group for group in (*GROUPS, *OTHER_GROUPS) if group in counts)
        return " ".join(dict.fromkeys(name.rpartition(".")[2] for name in self.modules)) or "unknown"


def find_adapter_folder(path: str) -> Path | None:
    """Return the folder of an adapter; None for a hub id whose files are not in the hub's cache."""
    folder = Path(path).expanduser()
    if folder.is_dir() or folder.is_absolute():
        return folder
    repository = hub_cache() / f"models--{path.replace('/', '--')}"
    reference = repository / "refs" / "main"
    revision = reference.read_text(encoding="utf-8").strip() if reference.is_file() else None
    cached = repository / "snapshots" / (revision or "none")
    return cached if all((cached / name).exists() for name in ADAPTER_FILES) else None


def fetch_adapter(path: str) -> Path:
    """Return the folder of an adapter; of a hub id, fetch its files into the hub's cache first.

    Raises:
        ModelError: the files are not there and cannot be fetched.
    """
    folder = find_adapter_folder(path)
    if folder is not None:
        return folder
    # before huggingface_hub, which is slow to import
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        fetched = Path(snapshot_download(path, allow_patterns=[*ADAPTER_FILES, ADAPTER_PROVENANCE]))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"lora.path: {path}: neither a folder, nor a hub id that can be fetched ({reason}); run `hf download "
            f"{path}` where there is a network, or set lora.path to the adapter's folder"
        ) from error
    check_files(fetched)
    return fetched


def check_files(folder: Path) -> None:
    """Check that a folder has PEFT's two files.

    Raises:
        ModelError: it has not; names what is missing.
    """
    for name in ADAPTER_FILES:
        if not (folder / name).is_file():
            pickled = " (adapter_model.bin is a pickle, which is not read)" if name == ADAPTER_WEIGHTS else ""
            raise ModelError(
                f"{folder}: {name} is missing; expected an adapter as PEFT's save_pretrained writes it, with "
                f"{' and '.join(ADAPTER_FILES)}{pickled}"
            )


def fingerprint_adapter(path: str) -> str | None:
    """Return the hash of an adapter's weights and config; None if it is not on this machine."""
    folder = find_adapter_folder(path)
    if folder is None or not all((folder / name).is_file() for name in ADAPTER_FILES):
        return None
    return hash_json([_hash_unchanged(folder / name, *_date(folder / name)) for name in ADAPTER_FILES])


def _date(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@lru_cache(256)
def _hash_unchanged(path: Path, _: int, __: int) -> str:
    """Return the hash of a file, which trials with the same adapter share."""
    return hash_file(path)


def read_adapter(folder: Path, shape: ModelShape | None = None) -> AdapterFacts:
    """Read an adapter's config and the header of its weights.

    Args:
        folder: as PEFT writes it.
        shape: of the model that it is meant for; None if that is not known.

    Raises:
        ModelError: a file is missing or damaged, or a kind that is not supported.
    """
    check_files(folder)
    try:
        config = read_json(folder / ADAPTER_CONFIG)
    except StoreError as error:
        raise ModelError(f"{folder}: {error}") from error
    if not isinstance(config, dict) or "peft_type" not in config:
        raise ModelError(
            f"{folder}: {ADAPTER_CONFIG} has no `peft_type`; expected the config of an adapter as PEFT writes it"
        )
    kind = _read_kind(config, folder)
    header = _read_header(folder / ADAPTER_WEIGHTS)
    names = [name.removeprefix(PREFIX) for name in header]
    if any(name.startswith(AUDIOCRAFT_STEMS) for name in names):
        shape = None
    known = (
        {} if shape is None else {part.name: part for part in list_trainable(shape, LoraSpec(kind="full"))}
    )
    found = {name: _find_module(name, kind) for name in names}
    modules = dict.fromkeys(module for module in found.values() if module)
    unknown = [
        name for name, module in found.items() if known and module and not _fits(module, name, header, known)
    ]
    rank, alpha = config.get("r"), config.get("lora_alpha", config.get("alpha"))
    return AdapterFacts(
        kind=kind,
        rank=rank if isinstance(rank, int) and "rank" in SETTINGS[kind] else None,
        alpha=alpha if isinstance(alpha, int | float) and "alpha" in SETTINGS[kind] else None,
        modules=tuple(modules),
        unknown=tuple(dict.fromkeys(found[name] or name for name in unknown)),
        n_params=sum(math.prod(shape) for shape in header.values()),
        n_bytes=(folder / ADAPTER_WEIGHTS).stat().st_size,
    )


def _read_kind(config: Mapping[str, Any], folder: Path) -> str:
    """Return an adapter's kind.

    Raises:
        ModelError: one that this program does not decode with.
    """
    kind = str(config["peft_type"]).lower()
    if kind == "lora":
        if config.get("target_modules") in (_NO_TARGETS, [_NO_TARGETS]):
            return "full"
        start = str(config.get("init_lora_weights")).lower()
        if start.startswith(_DECOMPOSING):
            raise ModelError(
                f"{folder}: init_lora_weights is `{start}`, so the adapter belongs to base weights that its training "
                "changed; save it with PEFT's `path_initial_model_for_weight_conversion`, which makes it plain LoRA"
            )
        if config.get("bias", "none") != "none" or config.get("lora_bias"):
            raise ModelError(
                f"{folder}: the adapter also changes biases, which is not supported; expected `bias: none` and "
                f"no `lora_bias` in {ADAPTER_CONFIG}"
            )
        return "dora" if config.get("use_dora") else "rslora" if config.get("use_rslora") else "lora"
    if kind not in SETTINGS:
        raise ModelError(
            f"{folder}: an adapter of PEFT's type {config['peft_type']}, which is not supported; expected one of "
            f"{', '.join(SETTINGS)}"
        )
    return kind


def _read_header(file: Path) -> dict[str, list[int]]:
    """Return the shapes of a safetensors file's tensors.

    Raises:
        ModelError: it is damaged.
    """
    try:
        with file.open("rb") as stream:
            n_bytes = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(n_bytes, MAX_HEADER_BYTES)))
        end = max(
            (each["data_offsets"][1] for name, each in header.items() if name != "__metadata__"), default=0
        )
        if file.stat().st_size != 8 + n_bytes + end:
            raise ValueError("it is cut off")
        return {name: each["shape"] for name, each in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise ModelError(f"{file}: not a whole safetensors file ({error}); copy the adapter again") from error


def _find_module(name: str, kind: str) -> str | None:
    """Return the module that a saved weight belongs to; None for weights that all modules share."""
    if kind == "full":
        return name.rpartition(".")[0]
    for part in (f".{stem}_" for stem in ("lora", "hada", "lokr", "oft", "vera", "ia3", "miss", "delora")):
        head, found, _ = name.rpartition(part)
        if found:
            return None if head == _SHARED else head
    # shared projections have no module; modules that are saved whole end in `weight` or `bias`
    return name.rpartition(".")[0] if name.endswith((".weight", ".bias")) else None


def _fits(module: str, name: str, header: Mapping[str, list[int]], known: Mapping[str, Linear]) -> bool:
    """Return whether the model has the module; of LoRA's matrices, also whether their widths are its own."""
    layer = known.get(module)
    if layer is None:
        return False
    shape = header.get(PREFIX + name) or header.get(name) or []
    if name.endswith("lora_A.weight"):
        return shape[-1:] == [layer.n_in]
    if name.endswith("lora_B.weight"):
        return shape[:1] == [layer.n_out]
    return True


def describe_misfit(facts: AdapterFacts, model_name: str) -> str | None:
    """Return why an adapter does not fit a model, naming some modules; None if nothing is known against it."""
    if not facts.unknown:
        return None
    n, names = len(facts.unknown), ", ".join(f"`{name}`" for name in facts.unknown[:MAX_NAMED])
    more = f" and {n - MAX_NAMED} more" if n > MAX_NAMED else ""
    return (
        f"{n} of its {len(facts.modules)} modules are not in {model_name}, or have other sizes there: {names}{more}; "
        "expected an adapter that was trained on the same model"
    )
