"""Settings of generation: what a clip depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lora_bench.planning.plan import plan_file
from lora_bench.spec import load_spec
from lora_bench.spec.schema import GenerationSpec

OTHER: dict[str, Any] = {
    "n_clips": 7, "batch_size": 3, "clip_s": 3.0, "overlap_s": 5.0, "guidance": 2.0, "temperature": 0.5, "top_k": 9,
    "adapter_scale": 0.5, "seed": 4, "quantization": "int8", "melodies": "tunes",
}  # fmt: skip


@pytest.mark.parametrize("field", sorted(GenerationSpec.model_fields))
def test_a_clip_depends_on_every_setting_but_the_number_of_clips_and_the_place_of_melodies(
    field: str,
) -> None:
    assert field in OTHER, f"give another value of the new field `{field}`"
    long = {"clip_s": 60.0} if field == "overlap_s" else {}
    changed = GenerationSpec.model_validate({**long, field: OTHER[field]})
    is_other_clip = changed.sampling != GenerationSpec.model_validate(long).sampling
    assert is_other_clip == (field not in {"n_clips", "batch_size", "melodies"})


def test_the_overlap_of_windows_is_no_part_of_a_clip_of_one_window(tmp_path: Path) -> None:
    assert GenerationSpec(overlap_s=5.0).sampling == GenerationSpec().sampling

    def list_ids(generation: str) -> list[str]:
        (tmp_path / "spec.yaml").write_text(
            "schema: 1\nname: t\ndataset: {builtin: chiptune}\nprompts: [a]\n"
            f"generation: {generation}\ntrials: {{grid: {{axes: {{lora.rank: [2, 4]}}}}}}\n",
            encoding="utf-8",
        )
        return [trial.id for trial in plan_file(load_spec(tmp_path / "spec.yaml")).trials]

    assert list_ids("{clip_s: 8, overlap_s: 5}") == list_ids("{clip_s: 8}")
    assert set(list_ids("{clip_s: 60, overlap_s: 5}")).isdisjoint(list_ids("{clip_s: 60}"))


@pytest.mark.parametrize(("clip_s", "is_in_windows"), [(30.0, False), (30.5, True)])
def test_clips_beyond_thirty_seconds_are_made_in_windows(clip_s: float, is_in_windows: bool) -> None:
    assert GenerationSpec(clip_s=clip_s).is_in_windows == is_in_windows
