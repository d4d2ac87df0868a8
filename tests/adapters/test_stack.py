"""Several adapters as one: the sum of their updates, as PEFT adds them up; clips of adapters without a run."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from peft import PeftModel

from benchmarks.random_model import TINY, save_random_musicgen
from lora_bench.adapters.stack import stack_adapters
from lora_bench.cli.main import main
from lora_bench.forecast.adapter_files import read_adapter
from lora_bench.models import MusicModel, load_model
from lora_bench.spec.schema import LoraSpec, ModelSpec


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model and adapters of several kinds."""
    place = tmp_path_factory.mktemp("stack")
    model = load_model(ModelSpec(id=str(save_random_musicgen(place / "model", TINY))), device="cpu")
    kinds = {
        "one": {"rank": 2, "targets": "all"},
        "two": {"rank": 4, "alpha": 2.0, "targets": "self_attention"},
        "loha": {"kind": "loha", "rank": 2},
        "full": {"kind": "full", "targets": "norms+self_attention"},
    }
    for seed, (name, lora) in enumerate(kinds.items()):
        model.inject_lora(LoraSpec.model_validate(lora), seed=seed)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.adapter_parameters().values():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        model.save_adapter(place / name)
    return place


@pytest.fixture(scope="module")
def model(place: Path) -> MusicModel:
    return load_model(ModelSpec(id=str(place / "model")), device="cpu")


def logits(network: Any) -> torch.Tensor:
    with torch.no_grad():
        codes = torch.arange(24).view(4, 6) % 64
        return network(input_ids=torch.tensor([[5, 9, 2]]), decoder_input_ids=codes).logits


def load_by_peft(model: MusicModel, folder: Path) -> torch.Tensor:
    """Logits of a plain network on which PEFT alone loads an adapter."""
    return logits(PeftModel.from_pretrained(copy.deepcopy(model.network), str(folder)).eval())


def test_the_sum_of_lora_adapters_is_pefts_combination_cat(
    model: MusicModel, place: Path, tmp_path: Path
) -> None:
    stack_adapters(model, [place / "one", place / "two"], tmp_path / "sum")
    facts = read_adapter(tmp_path / "sum")
    assert (facts.kind, facts.rank) == ("lora", 6)
    reference: Any = PeftModel.from_pretrained(copy.deepcopy(model.network), str(place / "one"), "one")
    reference.load_adapter(str(place / "two"), "two")
    reference.base_model.set_adapter(["one", "two"])  # whose updates PEFT adds in each layer
    found = load_by_peft(model, tmp_path / "sum")
    assert torch.allclose(found, logits(reference.eval()), atol=1e-5)
    assert not torch.allclose(found, load_by_peft(model, place / "one"), atol=1e-3)


def test_the_sum_of_two_equal_targets_is_add_weighted_adapter(
    model: MusicModel, place: Path, tmp_path: Path
) -> None:
    stack_adapters(model, [place / "two", place / "two"], tmp_path / "sum")
    reference: Any = PeftModel.from_pretrained(copy.deepcopy(model.network), str(place / "two"), "a")
    reference.load_adapter(str(place / "two"), "b")
    reference.add_weighted_adapter(["a", "b"], [1.0, 1.0], "sum", combination_type="cat")
    reference.set_adapter("sum")
    assert torch.allclose(load_by_peft(model, tmp_path / "sum"), logits(reference.eval()), atol=1e-5)


@pytest.mark.parametrize("names", [("one", "loha"), ("full", "two"), ("full", "loha", "one")])
def test_the_sum_with_other_kinds_is_that_of_pefts_merged_changes(
    model: MusicModel, place: Path, tmp_path: Path, names: tuple[str, ...]
) -> None:
    folders = [place / name for name in names]
    stack_adapters(model, folders, tmp_path / "sum")
    base = {name: value.clone() for name, value in model.network.state_dict().items()}
    network: Any = copy.deepcopy(model.network)
    for folder in folders:
        merged = cast(
            "Any", PeftModel.from_pretrained(copy.deepcopy(model.network), str(folder))
        ).merge_and_unload()
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                value.add_(merged.state_dict()[name] - base[name])
    assert read_adapter(tmp_path / "sum").kind == "full"
    assert torch.allclose(load_by_peft(model, tmp_path / "sum"), logits(network), atol=1e-5)
    assert all(torch.equal(value, base[name]) for name, value in model.network.state_dict().items())


def generate(place: Path, *options: str) -> int:
    return main(["generate", "--prompt", "a song", "--seconds", "0.2", "--quiet", *options])


def test_clips_are_generated_with_adapters_by_their_folders(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    both = ["--adapter", str(place / "one"), "--adapter", str(place / "two")]
    assert generate(place, *both[:2], "--to", "a.wav") == 0
    assert generate(place, *both, "--to", "b.wav") == 0
    assert generate(place, *both, "--adapter-scale", "0", "--to", "c.wav") == 0
    assert capsys.readouterr().out.splitlines()[:2] == ["a.wav", "a.zero-shot.wav"]
    a, b, c, twin = (Path(name).read_bytes() for name in ("a.wav", "b.wav", "c.wav", "a.zero-shot.wav"))
    assert len({a, b, twin}) == 3
    assert c == twin


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "expected a run, given by its spec or its folder, or --adapter FOLDER"),
        (["runs/x", "--adapter", "{place}/one"], "expected a run, or adapters by their folders, not both"),
        (["runs/x", "--model", "pocket"], "--model: is that of --adapter"),
        (["--adapter", "none"], "--adapter none: does not exist"),
        (["--adapter", "{place}/model"], "adapter_config.json is missing"),
        (
            ["--adapter", "{place}/one", "--model", "pocket"],
            "modules are not in pocket, or have other sizes there",
        ),
    ],
)
def test_what_cannot_be_generated_from_is_said(
    place: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(place, *(option.format(place=place) for option in options)) != 0
    assert said in capsys.readouterr().err


def test_a_sum_is_exported_as_an_adapter_and_as_merged_weights(
    model: MusicModel, place: Path, tmp_path: Path
) -> None:
    both = ["--adapter", str(place / "one"), "--adapter", str(place / "two")]
    assert main(["export", *both, "--to", str(tmp_path / "sum")]) == 0
    assert main(["export", *both, "--to", str(tmp_path / "merged"), "--merged"]) == 0
    merged = load_model(ModelSpec(id=str(tmp_path / "merged")), device="cpu")
    assert torch.allclose(load_by_peft(model, tmp_path / "sum"), logits(merged.network), atol=1e-4)
    for path in (tmp_path / "sum").iterdir():
        assert str(place).encode() not in path.read_bytes(), path.name
    assert main(["export", *both, "--to", str(tmp_path / "sum")]) == 2
    assert main(["export", *both, "--to", str(tmp_path / "new"), "--license", "mit"]) == 2


def test_comparing_an_adapter_says_how_to_score_it(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", str(place / "one"), str(place / "two")]) == 2
    assert "is an adapter, which has no scores; name it in a spec" in capsys.readouterr().err
