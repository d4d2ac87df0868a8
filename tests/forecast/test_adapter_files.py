"""The files of an adapter that exists already: kinds, sizes and faults, against what PEFT wrote."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.errors import ModelError
from lora_bench.forecast.adapter_files import (
    describe_misfit,
    fetch_adapter,
    find_adapter_folder,
    fingerprint_adapter,
    read_adapter,
)
from lora_bench.forecast.shapes import ModelShape, find_shape
from lora_bench.models import MusicModel, load_model
from lora_bench.models.bridges.adapters import rename_adapter
from lora_bench.spec.kinds import SETTINGS
from lora_bench.spec.schema import LoraSpec, ModelSpec

SAVED_AS = {"lora+": "lora", "pissa": "lora", "olora": "lora", "eva": "lora"}
"""By PEFT; B's learning rate and initial values are no part of a file."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MusicModel:
    folder = save_random_musicgen(tmp_path_factory.mktemp("model") / "tiny", TINY)
    return load_model(ModelSpec(id=str(folder)), device="cpu")


@pytest.fixture(scope="module")
def shape(model: MusicModel) -> ModelShape:
    found = find_shape(ModelSpec(id=model.info.name))
    assert found is not None
    return found


def save(model: MusicModel, folder: Path, **settings: object) -> Path:
    lora = LoraSpec.model_validate({"rank": 4, "block_size": 8, **settings})
    model.inject_lora(lora, seed=0)
    model.save_adapter(folder)
    model.remove_adapter()
    return folder


@pytest.mark.parametrize("kind", SETTINGS)
def test_kind_modules_and_parameters_are_those_that_peft_saved(
    model: MusicModel, shape: ModelShape, tmp_path: Path, kind: str
) -> None:
    folder = save(model, tmp_path / "a", kind=kind, targets="attention+ffn")
    facts = read_adapter(folder, shape)
    assert facts.kind == SAVED_AS.get(kind, kind)
    assert facts.unknown == ()
    assert facts.describe_targets(shape) == "self_attention+cross_attention+ffn"
    assert facts.n_params == sum(
        each.numel() for each in load_file(folder / "adapter_model.safetensors").values()
    )
    model.load_adapter(folder)
    assert facts.matched_modules == model.count_adapter().matched_modules
    model.remove_adapter()
    expected = {"pissa": 8, "olora": 8}.get(kind, 4 if "rank" in SETTINGS[kind] else None)
    assert facts.rank == expected


def test_targets_are_words_where_whole_groups_are_adapted_else_ends_of_names(
    model: MusicModel, shape: ModelShape, tmp_path: Path
) -> None:
    whole = read_adapter(save(model, tmp_path / "a", targets="attention"), shape)
    part = read_adapter(save(model, tmp_path / "b", targets=["self_attn.q_proj", "fc1"]), shape)
    assert whole.describe_targets(shape) == "attention"
    assert part.describe_targets(shape) == "fc1 q_proj"


def test_modules_that_the_model_does_not_have_are_named(shape: ModelShape, tmp_path: Path) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.ModuleDict({"query": nn.Linear(4, 4)}) for _ in range(6))

    get_peft_model(Other(), LoraConfig(target_modules=["query"])).save_pretrained(str(tmp_path / "a"))
    assert describe_misfit(read_adapter(tmp_path / "a", shape), "pocket") == (
        "6 of its 6 modules are not in pocket, or have other sizes there: `layers.0.query`, `layers.1.query`, "
        "`layers.2.query`, `layers.3.query` and 2 more; expected an adapter that was trained on the same model"
    )


def test_a_model_of_another_width_is_noticed(model: MusicModel, tmp_path: Path) -> None:
    folder = save(model, tmp_path / "a")
    misfit = describe_misfit(
        read_adapter(folder, find_shape(ModelSpec(id="facebook/musicgen-small"))), "small"
    )
    assert misfit is not None
    assert misfit.startswith("16 of its 16 modules are not in small, or have other sizes there")


def test_an_adapter_under_audiocrafts_names_is_left_to_loading(
    model: MusicModel, shape: ModelShape, tmp_path: Path
) -> None:
    folder = rename_adapter(save(model, tmp_path / "a"), tmp_path / "b", "audiocraft")
    assert describe_misfit(read_adapter(folder, shape), "tiny") is None


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"peft_type": "PREFIX_TUNING"},
            "of PEFT's type PREFIX_TUNING, which is not supported; expected one of lora",
        ),
        ({"bias": "all"}, "also changes biases, which is not supported"),
        ({"init_lora_weights": "pissa_niter_4"}, "belongs to base weights that its training changed"),
        ({"peft_type": None}, "of PEFT's type None"),
    ],
)
def test_configs_that_cannot_be_decoded_with_are_refused(
    model: MusicModel, tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    file = save(model, tmp_path / "a") / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    with pytest.raises(ModelError, match=told):
        read_adapter(tmp_path / "a")


def test_damaged_folders_say_what_is_wrong(model: MusicModel, tmp_path: Path) -> None:
    folder = save(model, tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(
        ModelError, match=r"adapter_model.safetensors: not a whole safetensors file \(it is cut off\)"
    ):
        read_adapter(folder)
    weights.write_bytes(b"\xff" * 40)
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        read_adapter(folder)
    weights.unlink()
    with pytest.raises(
        ModelError, match=r"adapter_model.safetensors is missing.*adapter_model.bin is a pickle"
    ):
        read_adapter(folder)
    (folder / "adapter_config.json").write_text("{}")
    weights.write_bytes(whole)
    with pytest.raises(ModelError, match="has no `peft_type`"):
        read_adapter(folder)


def test_the_fingerprint_is_that_of_content_not_of_place(model: MusicModel, tmp_path: Path) -> None:
    folder = save(model, tmp_path / "a")
    shutil.copytree(folder, tmp_path / "b")
    assert fingerprint_adapter(str(folder)) == fingerprint_adapter(str(tmp_path / "b"))
    before = fingerprint_adapter(str(folder))
    model.inject_lora(LoraSpec(rank=4), seed=1)
    model.save_adapter(folder)
    assert fingerprint_adapter(str(folder)) not in {None, before}
    assert fingerprint_adapter(str(tmp_path / "none")) is None


def test_a_hub_id_is_found_in_the_cache(
    model: MusicModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    assert find_adapter_folder("ada/music") is None
    repository = tmp_path / "hub" / "models--ada--music"
    save(model, repository / "snapshots" / "c0ffee")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    assert find_adapter_folder("ada/music") == repository / "snapshots" / "c0ffee"


def test_a_hub_id_without_a_network_says_how_to_get_it() -> None:
    with pytest.raises(
        ModelError, match=r"lora.path: ada/nothing: neither a folder.*hf download ada/nothing"
    ):
        fetch_adapter("ada/nothing")
