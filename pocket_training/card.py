"""Stage 4, card: measure the finished model and write `card.json` and `CARD.md`.

    python -m pocket_training.card --work WORK

Needs the working folder of the other stages (held-out tracks, their codes).  About four minutes on two cores.
`--render-only` only rewrites CARD.md from card.json.
"""

import json
import time
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np
import soundfile
import torch

from lora_bench.models.pocket import pocket_folder
from pocket_training.captions import Captioner
from pocket_training.corpus import CropSampler, cut_held_out, load_tracks
from pocket_training.export import load_model
from pocket_training.lm import CROP_FRAMES, OPENING_FRAMES, analyse_tracks
from pocket_training.loop import build_parser
from pocket_training.measure import (
    measure_baselines,
    measure_captions,
    measure_reconstruction,
    measure_samples,
)
from pocket_training.shapes import N_CODEBOOKS, SAMPLE_RATE_HZ
from pocket_training.sources import RENDERED, SCORES, SOURCES
from pocket_training.tokenizer import load_tokenizer
from pocket_training.tokens import cut_codes, load_segments

HERE = Path(__file__).parent
CARD_FOLDER = pocket_folder().parent


def measure_model(work: Path, seed: int, clips_folder: Path | None) -> dict[str, Any]:
    """Measure all figures of the card."""
    start = time.perf_counter()
    model = load_model(pocket_folder())
    tokenizer = load_tokenizer(pocket_folder())
    load_s = time.perf_counter() - start
    tracks = load_tracks(work)
    recorded = [track for track in tracks if track.source not in RENDERED]
    segments = load_segments(work)
    held_out = np.array([tracks[i].split == "heldout" for i in segments.track])
    captioner = Captioner(tracks, analyse_tracks(work, tracks))
    codes, captions, owners = cut_codes(segments.take(held_out), captioner, CROP_FRAMES, 120, seed)
    audio = cut_held_out(work, recorded, 8 * SAMPLE_RATE_HZ, 48)
    sampler = CropSampler(work, [t for t in recorded if t.split == "train"], 8 * SAMPLE_RATE_HZ)
    samples, clips = measure_samples(model, tokenizer, audio[:16], seed)
    if clips_folder is not None:
        clips_folder.mkdir(parents=True, exist_ok=True)
        for i, clip in enumerate(clips):
            soundfile.write(clips_folder / f"sample_{i}.wav", clip[0].numpy(), SAMPLE_RATE_HZ)
    parts = {name: getattr(model, name) for name in ("text_encoder", "audio_encoder", "decoder")}
    return {
        "parameters": {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()},
        "disk_mb": round(sum(f.stat().st_size for f in pocket_folder().iterdir()) / 1e6, 1),
        "load_s": round(load_s, 2),
        "sources": count_hours(tracks, segments.track),
        "codec": measure_reconstruction(model.audio_encoder, audio, sampler.draw(48, np.random.default_rng(seed))),
        "language_model": {
            "captions": measure_captions(model, tokenizer, codes, captions, owners, seed),
            "captions_opening": measure_captions(
                model, tokenizer, codes[..., :OPENING_FRAMES], captions, owners, seed
            ),
            "baselines": measure_baselines(segments.take(~held_out), codes, model.config.decoder.vocab_size),
            "train_curve": read_curve(work / "lm/checks.jsonl"),
        },
        "codec_curve": read_curve(work / "codec/checks.jsonl"),
        "samples": samples,
        "torch": torch.__version__,
    }  # fmt: skip


def count_hours(tracks: list[Any], encoded: np.ndarray) -> list[dict[str, Any]]:
    """Count tracks and hours of each source, and the hours that were encoded for the language model."""
    rows = []
    licences = {source.package: source.licence for source in (*SOURCES, SCORES)}
    for package in dict.fromkeys(track.source for track in tracks):
        mine = [track for track in tracks if track.source == package]
        rows.append({
            "source": package, "licence": licences.get(package, "?"), "tracks": len(mine),
            "hours": round(sum(t.length for t in mine) / SAMPLE_RATE_HZ / 3600, 2),
            "held_out_tracks": sum(t.split == "heldout" for t in mine),
            "encoded_hours": round(sum(tracks[i].source == package for i in encoded) * 24 / 3600, 2),
        })  # fmt: skip
    return rows


def read_curve(file: Path) -> list[dict[str, Any]]:
    """Read a stage's log, thinned to about twenty lines."""
    if not file.is_file():
        return []
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return lines[:: max(1, len(lines) // 20)]


def render_card(figures: dict[str, Any], template: str) -> str:
    """Fill the tables of `card_template.md`."""
    lm, codec, samples = figures["language_model"], figures["codec"], figures["samples"]
    rows = [
        f"| {r['source']} | {r['licence']} | {r['tracks']} ({r['held_out_tracks']}) "
        f"| {r['hours']} | {r['encoded_hours']} |"
        for r in figures["sources"]
    ]
    mel = [
        f"| {name.replace('_', ' ')} | {v['mean']:.3f} ± {v['se']:.3f} |"
        for name, v in codec["log_mel_l1"].items()
    ]
    losses = [
        f"| {name} | " + " | ".join(f"{v:.2f}" for v in values) + f" | {mean(values):.3f} |"
        for name, values in (
            ("uniform", [6.931] * 4),
            ("unigram", lm["baselines"]["unigram"]),
            ("bigram, smoothed", lm["baselines"]["bigram"]),
            ("pocket, right caption", lm["captions"]["right"]),
            ("pocket, another track's caption", lm["captions"]["shuffled"]),
        )
    ]
    sampled, real = samples["sampled"], samples["heldout_music"]
    speed = "\n".join(
        [
            f"| level, dBFS (median) | {median(sampled['level_dbfs']):.1f} | {median(real['level_dbfs']):.1f} |",
            f"| centroid, Hz (median) | {median(sampled['centroid_hz']):.0f} | {median(real['centroid_hz']):.0f} |",
            f"| silent 50 ms frames | {sampled['silent_frac']:.1%} | {real['silent_frac']:.1%} |",
            f"| spectral flatness (1 is white noise) | {sampled['flatness']} | {real['flatness']} |",
        ]
    )
    values = {
        "SOURCES": "\n".join(rows), "MEL": "\n".join(mel), "LOSSES": "\n".join(losses), "SAMPLES": speed,
        "HOURS": f"{sum(r['hours'] for r in figures['sources']):.1f}",
        "ENCODED": f"{sum(r['encoded_hours'] for r in figures['sources']):.1f}",
        "SI_SDR": f"{codec['si_sdr_db']['codec']} ± {codec['si_sdr_db']['se']}",
        "SI_SDR_NOISE": str(codec["si_sdr_db"]["noise"]),
        "PERPLEXITY": ", ".join(map(str, codec["perplexity"])),
        "USED": ", ".join(map(str, codec["codes_used"])),
        "N_CODEC": str(codec["n_clips"]), "LEVEL": str(codec["level_db_change"]),
        "GAIN": f"{lm['captions']['gain']:.4f} ± {lm['captions']['gain_se']:.4f}",
        "N_LM": str(lm["captions"]["n_clips"]),
        "GAIN_CLIP": f"{lm['captions']['gain'] * CROP_FRAMES * N_CODEBOOKS:.1f}",
        "OPENING": "{gain:.4f} ± {gain_se:.4f}".format(**lm["captions_opening"]),
        "OPENING_CLIP": f"{lm['captions_opening']['gain'] * OPENING_FRAMES * N_CODEBOOKS:.1f}",
        "N_TRACKS": str(lm["captions"]["n_tracks"]),
        "DISTINCT": ", ".join(map(str, samples["distinct_codes_per_clip"])),
        "WALL": str(samples["wall_s"]), "SPEED": str(samples["audio_s_per_s"]),
        "THREADS": str(samples["threads"]), "LOAD": str(figures["load_s"]), "DISK": str(figures["disk_mb"]),
        **{name.upper(): f"{n / 1e6:.2f} M" for name, n in figures["parameters"].items()},
    }  # fmt: skip
    for name, value in values.items():
        template = template.replace("{{" + name + "}}", value)
    return template


def main() -> None:
    """Run the command line."""
    parser = build_parser(__doc__)
    parser.add_argument("--work", type=Path, help="working folder of the other stages")
    parser.add_argument("--clips", type=Path, default=None, help="where to keep the sampled clips")
    parser.add_argument("--render-only", action="store_true")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if not args.render_only:
        if args.work is None:
            parser.error("--work is needed to measure (or give --render-only)")
        figures = measure_model(args.work, args.seed, args.clips)
        (CARD_FOLDER / "card.json").write_text(json.dumps(figures, indent=1) + "\n")
    figures = json.loads((CARD_FOLDER / "card.json").read_text())
    (CARD_FOLDER / "CARD.md").write_text(render_card(figures, (HERE / "card_template.md").read_text()))


if __name__ == "__main__":
    main()
