"""Adapters to take away: other programs load them, nothing of this machine is in them, the hub gets them."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub.repocard_data import model_index_to_eval_results
from peft import PeftModel
from support.fake_hub import FakeHub
from support.tiny_run import TinyRun
from transformers import AutoTokenizer, MusicgenForConditionalGeneration

from lora_bench.adapters.choose import choose_trial
from lora_bench.adapters.model_card import CardFacts, write_card
from lora_bench.cli.main import main
from lora_bench.models import load_model
from lora_bench.models.bridges.conversion import write_merged
from lora_bench.results.gather import gather_results
from lora_bench.spec.data_size import DataSizeSpec
from lora_bench.spec.schema import ModelSpec


def logits_of(network: torch.nn.Module, folder: Path) -> torch.Tensor:
    """What transformers' own forward says, [K, T, V]."""
    ids = AutoTokenizer.from_pretrained(folder)(["a song"], return_tensors="pt")
    with torch.no_grad():
        return network(**ids, decoder_input_ids=torch.arange(20).view(4, 5) % 64).logits


def export(run: TinyRun, folder: Path, *options: str) -> int:
    return main(["export", str(run.folder), "--to", str(folder), *options])


@pytest.mark.parametrize("name", ["plain", "dora"])
def test_an_exported_adapter_and_merged_weights_say_the_same_by_plain_libraries(
    tiny_run: TinyRun, tmp_path: Path, name: str
) -> None:
    base = Path(tiny_run.plan.trials[0].model.id)
    assert export(tiny_run, tmp_path / "adapter", "--trial", name) == 0
    assert export(tiny_run, tmp_path / "merged", "--trial", name, "--merged") == 0
    plain = MusicgenForConditionalGeneration.from_pretrained(base).eval()
    without = logits_of(plain, base)
    adapted = PeftModel.from_pretrained(plain, str(tmp_path / "adapter")).eval()
    merged = MusicgenForConditionalGeneration.from_pretrained(tmp_path / "merged").eval()
    expected = logits_of(adapted, base)
    assert torch.allclose(logits_of(merged, tmp_path / "merged"), expected, atol=1e-4)
    assert not torch.allclose(expected, without, atol=1e-2)


def write_changed_card(run: TinyRun, sections: dict[str, Any], *, merged: bool = False) -> str:
    """The card of a trial as if its settings were others."""
    chosen = choose_trial(run.folder, "plain")
    changed = {
        name: getattr(chosen.plan, name).model_copy(update=fields) for name, fields in sections.items()
    }
    chosen = replace(chosen, plan=chosen.plan.model_copy(update=changed))
    return write_card(chosen, CardFacts("tiny", "mine", None), merged=merged)


def test_the_card_tells_at_what_strength_the_adapter_was_scored(tiny_run: TinyRun) -> None:
    half = {"generation": {"adapter_scale": 0.5}}
    text = write_changed_card(tiny_run, half)
    assert "The adapter was scored at strength 0.5" in text
    assert "`lora-bench generate --adapter FOLDER --adapter-scale 0.5`" in text
    assert "and is merged in, at strength 0.5" in write_changed_card(tiny_run, half, merged=True)
    assert "strength" not in write_changed_card(tiny_run, {})


def test_the_card_does_not_claim_tracks_that_the_adapter_was_not_trained_on(tiny_run: TinyRun) -> None:
    part = write_changed_card(tiny_run, {"dataset": {"size": DataSizeSpec(tracks=2)}})
    assert "it was trained on 2." in part
    existing = write_changed_card(tiny_run, {"lora": {"path": "mine"}})
    assert "## Training data" not in existing
    assert "was not trained in this run, which does not know its training data" in existing


def test_weights_are_merged_at_the_strength_that_was_scored(tiny_run: TinyRun, tmp_path: Path) -> None:
    spec, adapter = tiny_run.plan.trials[0].model, tiny_run.adapter("dora")
    states: list[dict[str, torch.Tensor]] = []
    for strength in (0.0, 0.5, 1.0):
        folder = tmp_path / f"{strength:g}"
        folder.mkdir()
        write_merged(spec, adapter, folder, strength)
        states.append(MusicgenForConditionalGeneration.from_pretrained(folder).state_dict())
    base, half, full = states
    plain = MusicgenForConditionalGeneration.from_pretrained(spec.id).state_dict()
    assert all(torch.equal(base[name], plain[name]) for name in plain)
    assert any(not torch.equal(base[name], full[name]) for name in plain)
    for name, each in half.items():
        assert torch.allclose(each, (base[name] + full[name]) / 2, atol=1e-6), name


def test_merged_weights_are_a_model_of_this_program_too_and_stay_marked_untrained(
    tiny_run: TinyRun, tmp_path: Path
) -> None:
    assert export(tiny_run, tmp_path / "merged", "--merged") == 0
    model = load_model(ModelSpec(id=str(tmp_path / "merged")), device="cpu")
    base = load_model(tiny_run.plan.trials[0].model, device="cpu")
    assert model.info.trained is False
    assert model.info.weights_hash != base.info.weights_hash
    assert model.info.audio_format == base.info.audio_format


def test_nothing_of_this_machine_is_in_an_export(tiny_run: TinyRun, tmp_path: Path) -> None:
    for options in ([], ["--merged"]):
        folder = tmp_path / f"out{len(options)}"
        assert export(tiny_run, folder, *options) == 0
        for path in folder.iterdir():
            data = path.read_bytes()
            for private in (str(tiny_run.folder), str(tiny_run.folder.parents[1]), str(Path.home()) + "/"):
                assert private.encode() not in data, path.name
            assert path.stat().st_mode & 0o777 == 0o644
    origin = json.loads((tmp_path / "out0" / "lora_bench.json").read_text())
    assert origin["model"] == "tiny-musicgen"
    assert origin["lora"]["rank"] == 4
    assert origin["result"]["curve"][-1]["eval_loss"] == 3.5


def test_the_card_tells_base_data_licence_scores_and_how_to_load(tiny_run: TinyRun, tmp_path: Path) -> None:
    assert export(tiny_run, tmp_path / "my-adapter", "--license", "cc-by-nc-4.0") == 0
    text = (tmp_path / "my-adapter" / "README.md").read_text(encoding="utf-8")
    _, head, body = text.split("---\n", 2)
    facts = yaml.safe_load(head)
    index = facts.pop("model-index")
    assert facts == {
        "license": "cc-by-nc-4.0",
        "library_name": "peft",
        "pipeline_tag": "text-to-audio",
        "tags": ["musicgen", "lora", "lora-bench"],
    }
    name, read = model_index_to_eval_results(index)
    (trial,) = (item for item in gather_results(tiny_run.folder).trials if item.name == "plain")
    pooled = {item.metric: item.best_value for item in trial.scores if item.prompt is None}
    assert name == "my-adapter"
    assert {item.metric_type: item.metric_value for item in read} == pooled
    assert read
    assert {item.task_type for item in read} == {"text-to-audio"}
    assert "# my-adapter" in body
    assert "base model: `tiny-musicgen`" in body
    assert "The licence of the base weights is not known" in body
    assert "is untrained" in body
    assert "| invented march | 0.900 c (0.880 to 0.920) | 0.400 c (0.380 to 0.420) | — | — |" in (
        body.replace("\u00a0", " ")
    )
    assert 'PeftModel.from_pretrained(model, "my-adapter")' in body
    assert "held-out loss in nats per code: 4.0000 before, 3.5000 after" in body


@pytest.mark.parametrize(
    ("base", "licence", "link"),
    [("facebook/musicgen-small", "cc-by-nc-4.0", "facebook/musicgen-small"), ("pocket", "other", None)],
)
def test_the_licence_of_known_base_weights_is_stated(
    tiny_run: TinyRun, base: str, licence: str, link: str | None
) -> None:
    from lora_bench.adapters.choose import choose_trial
    from lora_bench.adapters.model_card import CardFacts, write_card

    text = write_card(choose_trial(tiny_run.folder, "plain"), CardFacts("x", base), merged=False)
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["license"] == licence
    assert head.get("base_model") == link
    assert head.get("base_model_relation") == ("adapter" if link else None)


def test_a_folder_in_use_is_left_alone(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert export(tiny_run, tmp_path / "mine") == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


# ---------------------------------------------------------------- the hub


def push(
    run: TinyRun, folder: Path, hub: FakeHub, *options: str, offline: bool = False
) -> subprocess.CompletedProcess[str]:
    """In a process of its own: huggingface_hub reads its settings once, when it is imported."""
    command = ["export", str(run.folder), "--to", str(folder), "--push-to-hub", "ada/tune", *options]
    environment = {
        "HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_invented", "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(folder.parent / "hf"),
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "lora_bench", *command],
        capture_output=True, text=True, check=False, env={**os.environ, **environment},
    )  # fmt: skip


def test_a_pushed_adapter_arrives_whole_in_a_private_repository(
    tiny_run: TinyRun, tmp_path: Path, hub: FakeHub
) -> None:
    done = push(tiny_run, tmp_path / "out", hub)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{hub.address}/ada/tune/commit/abc"
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == hub.files()
    assert b'PeftModel.from_pretrained(model, "ada/tune")' in hub.files()["README.md"]
    assert hub.card.startswith("---\n")
    # newer versions of huggingface_hub say `visibility`
    assert hub.repository.get("private") is True or hub.repository.get("visibility") == "private"
    assert {token for _, token in hub.asked} == {"Bearer hf_invented"}
    assert "hf_invented" not in done.stdout + done.stderr
    weights = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
    assert set(hub.large) == {hashlib.sha256(weights).hexdigest()}


def test_a_refused_push_says_why_and_keeps_the_folder(
    tiny_run: TinyRun, tmp_path: Path, hub: FakeHub
) -> None:
    hub.refuses = True
    done = push(tiny_run, tmp_path / "out", hub, "--public")
    assert done.returncode == 1
    assert "403" in done.stderr
    assert "is written; log in with `hf auth login`" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "adapter_model.safetensors").is_file()


def test_offline_nothing_is_sent(tiny_run: TinyRun, tmp_path: Path, hub: FakeHub) -> None:
    done = push(tiny_run, tmp_path / "out", hub, offline=True)
    assert done.returncode == 1
    assert "HF_HUB_OFFLINE is set" in done.stderr
    assert hub.asked == []


def test_a_name_that_is_no_repository_is_refused_before_anything_is_written(
    tiny_run: TinyRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tiny_run, tmp_path / "out", "--push-to-hub", "no repository") == 2
    assert "expected OWNER/NAME" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
