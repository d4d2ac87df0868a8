"""A model is what loads: every layout in which MusicGen is published, at tiny width, offline."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from support.older_names import give_older_names

from lora_bench.errors import ModelError
from lora_bench.models import hash_cache, identity, load_model
from lora_bench.models.bridges.conversion import convert
from lora_bench.models.bridges.exports import find_audiocraft_files, read_parts
from lora_bench.models.identity import ModelIdentity, identify_folder, identify_parts
from lora_bench.models.model_files import find_weight_files
from lora_bench.spec.schema import ModelSpec

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
State = dict[str, torch.Tensor]


def write_shards(
    folder: Path, state: State, index: str, pattern: str, write: Callable[[State, Path], None]
) -> None:
    names, n_shards = sorted(state), 2
    weight_map: dict[str, str] = {}
    for shard in range(n_shards):
        file = pattern.format(f"{shard + 1:05d}-of-{n_shards:05d}")
        part = {name: state[name] for name in names[shard::n_shards]}
        write(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / index).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def save_safe(state: State, path: Path) -> None:
    save_file(state, path, metadata={"format": "pt"})


def round_to_half(state: State) -> State:
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def write_small(folder: Path, state: State) -> None:
    """facebook/musicgen-small: one file of each kind, and audiocraft's beside them."""
    save_safe(state, folder / WEIGHTS)
    torch.save(state, folder / PICKLE)
    (folder / "state_dict.bin").write_bytes(b"read by audiocraft alone")


def write_sharded(folder: Path, state: State) -> None:
    """facebook/musicgen-medium and -large: shards with an index, both kinds."""
    write_shards(folder, state, INDEX, "model-{}.safetensors", save_safe)
    write_shards(folder, state, PICKLE_INDEX, "pytorch_model-{}.bin", torch.save)


def write_half_and_whole(folder: Path, state: State) -> None:
    """facebook/musicgen-stereo-small: `model.safetensors`, and other numbers in `model.fp32.safetensors`."""
    save_safe(state, folder / WEIGHTS)
    save_safe({name: tensor + 1 for name, tensor in state.items()}, folder / "model.fp32.safetensors")


def write_half_and_whole_shards(folder: Path, state: State) -> None:
    """facebook/musicgen-stereo-large: the same in shards."""
    write_shards(folder, state, INDEX, "model-{}.safetensors", save_safe)
    other = {name: tensor + 1 for name, tensor in state.items()}
    write_shards(folder, other, "model.safetensors.index.fp32.json", "model.fp32-{}.safetensors", save_safe)


def write_whole_alone(folder: Path, state: State) -> None:
    """A cache that holds the `fp32` variant alone."""
    save_safe(state, folder / "model.fp32.safetensors")


def write_pickle(folder: Path, state: State) -> None:
    """An early conversion: a pickle with weight normalisation under its older names."""
    torch.save(give_older_names(state), folder / PICKLE)


def write_pickled_shards(folder: Path, state: State) -> None:
    """Two pickled shards and their index."""
    write_shards(folder, state, PICKLE_INDEX, "pytorch_model-{}.bin", torch.save)


def write_half(folder: Path, state: State) -> None:
    """The same numbers in half precision; that none is lost is seen to by the fixture."""
    save_safe(round_to_half(state), folder / WEIGHTS)


def write_part_of_the_shards(folder: Path, state: State) -> None:
    """A cache that holds one shard of two, and the pickles whole."""
    write_sharded(folder, state)
    (folder / "model-00002-of-00002.safetensors").unlink()


def write_dangling(folder: Path, state: State) -> None:
    """A cache whose blob of `model.safetensors` was deleted, with the shards whole."""
    write_sharded(folder, state)
    (folder / WEIGHTS).symlink_to(folder / "blobs" / "gone")


LAYOUTS = (
    write_small, write_sharded, write_half_and_whole, write_half_and_whole_shards, write_whole_alone,
    write_pickle, write_pickled_shards, write_half, write_part_of_the_shards, write_dangling,
)  # fmt: skip


def keep_half_precision(source: Path, place: Path) -> Path:
    """A copy whose numbers half precision holds."""
    shutil.copytree(source, place)
    state = {name: tensor.float() for name, tensor in round_to_half(load_file(place / WEIGHTS)).items()}
    save_safe(state, place / WEIGHTS)
    return place


@pytest.fixture(scope="module")
def original(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep_half_precision(tiny_folder, tmp_path_factory.mktemp("original") / "mono")


@pytest.fixture(scope="module")
def stereo_original(stereo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keep_half_precision(stereo_folder, tmp_path_factory.mktemp("original") / "stereo")


def lay_out(original: Path, folder: Path, write: Callable[[Path, State], None]) -> Path:
    shutil.copytree(original, folder)
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    write(folder, state)
    return folder


def identify(folder: Path) -> ModelIdentity:
    info = load_model(ModelSpec(id=str(folder), dtype="float32"), device="cpu").info
    assert info.codec_hash is not None
    return ModelIdentity(info.weights_hash, info.codec_hash)


@pytest.mark.parametrize("write", LAYOUTS, ids=lambda write: write.__name__)
def test_every_published_layout_loads_and_is_the_same_model(
    write: Callable[[Path, State], None], original: Path, stereo_original: Path, tmp_path: Path
) -> None:
    if "half" in write.__name__:
        original = stereo_original
    expected = identify(original)
    found = lay_out(original, tmp_path / "other name", write)
    assert identify(found) == expected
    assert identify_folder(found, "again") == expected


@pytest.mark.parametrize(
    "write", [write_half_and_whole, write_part_of_the_shards], ids=lambda write: write.__name__
)
def test_every_published_layout_loads_from_the_hubs_cache(
    write: Callable[[Path, State], None], original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--facebook--musicgen-tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    lay_out(original, repository / "snapshots" / ("0" * 40), write)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    model = load_model(ModelSpec(id="facebook/musicgen-tiny"), device="cpu")
    assert model.info.weights_hash == identify(original).weights


@pytest.mark.parametrize("kind", ["original", "stereo_original"])
def test_a_model_converted_to_audiocraft_and_back_is_the_same_model(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    original: Path = request.getfixturevalue(kind)
    expected = identify(original)
    convert(str(original), tmp_path / "export", library=None, adapter=None, base=None)
    files = find_audiocraft_files(ModelSpec(id=str(tmp_path / "export")))
    assert files is not None
    assert identify_parts(*read_parts(files)) == expected
    convert(str(tmp_path / "export"), tmp_path / "back", library=None, adapter=None, base=None)
    assert identify(tmp_path / "back") == expected


def change_tensor(folder: Path, name: str) -> None:
    state = load_file(folder / WEIGHTS)
    state[name] = state[name] + 0.5
    save_safe(state, folder / WEIGHTS)


@pytest.mark.parametrize(
    ("name", "same_codec"),
    [
        ("decoder.model.decoder.layers.0.fc1.weight", True),
        ("audio_encoder.decoder.layers.0.conv.bias", False),
    ],
)
def test_every_tensor_counts_and_the_codec_is_known_by_its_own(
    name: str, same_codec: bool, original: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(original, tmp_path / "copy")
    change_tensor(copy, name)
    before, after = identify(original), identify(copy)
    assert before.weights != after.weights
    assert (before.codec == after.codec) == same_codec


@pytest.mark.parametrize(
    ("section", "field", "value", "is_same"),
    [
        ("decoder", "num_attention_heads", 2, False),
        ("audio_encoder", "use_causal_conv", True, False),
        ("text_encoder", "relative_attention_max_distance", 64, False),
        ("decoder", "dropout", 0.5, True),
    ],
)
def test_settings_that_change_results_count_and_others_do_not(
    section: str, field: str, value: Any, is_same: bool, original: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(original, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    config[section][field] = value
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert (identify(copy).weights == identify(original).weights) == is_same


def test_a_model_is_hashed_once_wherever_it_lies(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    expected = identify(original)
    moved = shutil.copytree(original, tmp_path / "moved")
    monkeypatch.setattr(identity, "_digest", lambda _: pytest.fail("hashed again"))
    assert identify(moved) == expected
    assert str(original) not in hash_cache.cache_file().read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [None, "{"])
def test_a_cache_that_cannot_be_used_costs_time_only(
    content: str | None, original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = identify(original)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if content is None:
        (tmp_path / "lora_bench").write_text("a file where the folder should be", encoding="utf-8")
    else:
        (tmp_path / "lora_bench").mkdir()
        (tmp_path / "lora_bench" / "hashes.json").write_text(content, encoding="utf-8")
    assert identify(original) == expected


def test_missing_shards_are_named(original: Path, tmp_path: Path) -> None:
    copy = lay_out(original, tmp_path / "copy", write_part_of_the_shards)
    (copy / "pytorch_model-00001-of-00002.bin").unlink()
    with pytest.raises(ModelError) as caught:
        load_model(ModelSpec(id=str(copy)), device="cpu")
    assert "model-00002-of-00002.safetensors of model.safetensors.index.json" in str(caught.value)
    assert "pytorch_model-00001-of-00002.bin of pytorch_model.bin.index.json" in str(caught.value)


def test_pickles_that_hold_more_than_tensors_are_refused(original: Path, tmp_path: Path) -> None:
    copy = lay_out(original, tmp_path / "copy", write_pickle)
    state: dict[str, Any] = torch.load(copy / PICKLE, weights_only=True)
    torch.save(state | {"hook": Path("/tmp")}, copy / PICKLE)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(ModelSpec(id=str(copy)), device="cpu")


def test_files_are_chosen_in_transformers_order(original: Path, tmp_path: Path) -> None:
    copy = lay_out(original, tmp_path / "copy", write_sharded)
    save_safe({"x": torch.zeros(1)}, copy / WEIGHTS)
    assert find_weight_files(copy).files == (copy / WEIGHTS,)
