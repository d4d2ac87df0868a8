"""Settings of generation: what a clip depends on."""

from __future__ import annotations

from typing import Any

import pytest

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
    changed = GenerationSpec.model_validate({field: OTHER[field]})
    is_other_clip = changed.sampling != GenerationSpec().sampling
    assert is_other_clip == (field not in {"n_clips", "batch_size", "melodies"})


@pytest.mark.parametrize(("clip_s", "is_in_windows"), [(30.0, False), (30.5, True)])
def test_clips_beyond_thirty_seconds_are_made_in_windows(clip_s: float, is_in_windows: bool) -> None:
    assert GenerationSpec(clip_s=clip_s).is_in_windows == is_in_windows
