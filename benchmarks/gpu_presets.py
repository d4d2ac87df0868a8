"""The table of GPU presets in `docs/speed.md`, from shapes and data sheets; no GPU is used.

python benchmarks/gpu_presets.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from lora_bench.forecast import Forecaster, History
from lora_bench.forecast.cards import choose_card
from lora_bench.planning.plan import plan_file
from lora_bench.spec import load_spec

BASES = Path(__file__).resolve().parents[1] / "specs" / "base"
CARDS = {12: "RTX 4070 12GB", 24: "RTX 4090 24GB", 48: "L40S 48GB", 80: "H100 80GB"}
SPEC = """
schema: 1
extends: [{base}]
dataset: {{path: music}}
prompts: [calm music]
generation: {{n_clips: 150, clip_s: 8}}
trials: {{variants: [{{name: large, lora: {{rank: 64, targets: all}}, train: {{steps: 1000}}}}]}}
"""
HEAD = (
    "| preset | model | slices at once | training, GiB | clips at once | decoding, GiB | with sound, GiB "
    "| GPU | time |\n"
    "|:---|:---|---:|---:|---:|---:|---:|:---|---:|"
)


def write_table() -> str:
    """Return the table in Markdown: a trial of the largest adapter that the presets speak of, 1000 steps, 150 clips."""
    rows = [HEAD]
    for size_gb, name in CARDS.items():
        with tempfile.TemporaryDirectory() as folder:
            spec = Path(folder) / "own.yaml"
            spec.write_text(SPEC.format(base=BASES / f"gpu_{size_gb}gb.yaml"), encoding="utf-8")
            trial = next(each for each in plan_file(load_spec(spec, [])).trials if each.train is not None)
        found = Forecaster(History(()), card=choose_card(name)).predict(trial)
        stages, train = found.stages, trial.train
        assert stages is not None
        assert train is not None
        assert found.time_s is not None
        model = trial.model.id.removeprefix("facebook/musicgen-")
        rows.append(
            f"| `base/gpu_{size_gb}gb.yaml` | {model} | {train.batch_size} | "
            f"{stages.training:.1f} | {stages.n_clips} | {stages.decoding:.1f} | {stages.sound:.1f} | {name} | "
            f"{found.time_s / 60:.0f} min |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(write_table())
