"""Stage 3, language model: train text encoder and decoder together on the codec's codes, then export.

    python -m pocket_training.lm --work WORK --threads 1

The same command resumes: every `--save-minutes`, at the end and on SIGTERM the state of the training is saved to
`WORK/lm/training.pt`, and the model, with averaged weights, to `WORK/lm/weights/`.  Every `--check-every-s`
audio-seconds a line of held-out figures is added to `WORK/lm/checks.jsonl`.

Crops of ten seconds, delay pattern, cross-entropy per codebook over all frames; every third step on crops of
1.28 s, which teach the text side (in long crops the music itself predicts what follows).  The caption is dropped in
one crop of five: MusicGen's null condition, zero states and zero mask, which guidance needs.  Muon trains the
matrices of the decoder's self-attention and feed-forward (Jordan 2024: fewer steps than AdamW), AdamW the rest; the
learning rate follows the audio-seconds seen and ends at zero.

`--start WEIGHTS --audio-s 0` only puts `WORK/codec` into a finished model.

The first run analyses the tracks (`WORK/heard.pkl`) and encodes all of them (`WORK/segments.npz`); later runs reuse
both.  Remove `segments.npz` when the codec changes.
"""

import argparse
import copy
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EncodecModel, MusicgenForConditionalGeneration, T5Tokenizer

from pocket_training.captions import Captioner, Heard, analyse_track
from pocket_training.corpus import load_tracks, open_audio
from pocket_training.data import Track
from pocket_training.export import export_model, load_encodec, load_model
from pocket_training.lm_parts import (
    Average,
    build_optimizers,
    compute_losses,
    evaluate_model,
    freeze_music,
    measure_gain,
    start_embeddings,
    start_text,
    tokenize,
)
from pocket_training.loop import add_training_options, build_parser, load_state, run_training, save_state
from pocket_training.shapes import FRAME_RATE_HZ, build_model
from pocket_training.tokenizer import load_tokenizer, train_tokenizer
from pocket_training.tokens import CodeCrops, Segments, cut_codes, encode_segments, load_segments

CROP_FRAMES = 10 * FRAME_RATE_HZ  # of the card
OPENING_FRAMES = 64  # 1.28 s: there is little music yet, and the caption is all that is known
CAPTION_DROPOUT = 0.2


def analyse_tracks(work: Path, tracks: list[Track]) -> list[Heard]:
    """Analyse all tracks (tempo, key, windows), or read `WORK/heard.pkl`."""
    cache = work / "heard.pkl"
    if cache.is_file():
        return pickle.loads(cache.read_bytes())  # our own file
    audio = open_audio(work)
    heard = [analyse_track(audio[t.start : t.start + t.length]) for t in tracks]
    cache.write_bytes(pickle.dumps(heard))
    return heard


def get_rate_frac(frac: float) -> float:
    """Return the learning rate's factor: it warms up for 4 % of the training, holds until 40 %, then falls to zero."""
    return max(frac, 1e-3) / 0.04 if frac < 0.04 else 1.0 if frac < 0.4 else max(0.0, (1 - frac) / 0.6)


def prepare_codes(work: Path, tracks: list[Track], device: str) -> Segments:
    """Return the codes of all tracks; `WORK/codec` encodes them on the first call, on the device."""
    if not (work / "segments.npz").is_file():
        encode_segments(work, tracks, load_encodec(work / "codec").to(torch.device(device)))
    return load_segments(work)


class LmTraining:
    """Model, optimizers and crops at some step of the training."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Start, or resume from `WORK/lm/training.pt`."""
        torch.manual_seed(args.seed)
        self.args, self.folder = args, args.work / args.run
        self.folder.mkdir(parents=True, exist_ok=True)
        self.step, self.seen_s, self.wall_s, self.cpu_s = 0, 0.0, 0.0, 0.0
        tracks = load_tracks(args.work)
        captioner = Captioner(tracks, analyse_tracks(args.work, tracks))
        segments = prepare_codes(args.work, tracks, args.device)
        held_out = np.array([tracks[i].split == "heldout" for i in segments.track])
        train = segments.take(~held_out)
        n_frames = round(args.crop_s * FRAME_RATE_HZ)
        self.crops = CodeCrops(train, captioner, n_frames, args.seed)
        self.openings = CodeCrops(train, captioner, min(OPENING_FRAMES, n_frames), args.seed + 500)
        codes, captions, _ = cut_codes(segments.take(held_out), captioner, n_frames, 42, args.seed)
        self.checks = (codes, captions)
        is_resumed = (self.folder / "training.pt").is_file()
        source = self.folder / "weights" if is_resumed else args.start
        if source is None:
            tokenizer = train_tokenizer(write_text(train, captioner, args.seed))
        else:
            tokenizer = load_tokenizer(source)
        self.tokenizer: T5Tokenizer = tokenizer
        start = None if is_resumed else args.start
        self.model = start_model(load_encodec(args.work / "codec"), start, args).to(args.device)
        self.optimizers = build_optimizers(self.model, args.text_only)
        self.average = Average(copy.deepcopy(self.model), 0.99)
        if is_resumed:
            self._load()

    def take_step(self) -> list[float]:
        """Learn from one batch of crops, or of openings every third time; return each codebook's loss."""
        args = self.args
        frac = get_rate_frac(self.seen_s / args.audio_s) * args.rate_factor
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * frac
        opens = args.opening_every > 0 and self.step % args.opening_every == args.opening_every - 1
        crops = self.openings if opens else self.crops
        # about the same number of frames for any length of crop
        codes, captions = crops.draw(max(1, round(args.batch * self.crops.n_frames / crops.n_frames)))
        device = self.model.device
        text = tokenize(self.tokenizer, captions, device)
        drop = torch.rand(len(codes)) < (0.0 if args.text_only else CAPTION_DROPOUT)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            losses = compute_losses(self.model, codes.to(device), text, drop.to(device)).mean(0)  # (K,)
        losses.mean().backward()
        nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.grad is not None], 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.average.update(self.model)
        self.step += 1
        self.seen_s += codes.shape[0] * codes.shape[2] / FRAME_RATE_HZ
        return losses.tolist()

    def save(self) -> None:
        """Save the state of the training, and the averaged model."""
        facts = {"trained": True, "step": self.step, "audio_s": round(self.seen_s), "seed": self.args.seed}
        export_model(self.average.model, self.tokenizer, self.folder / "weights", facts)
        state = {
            "model": self.model.state_dict(), "average": self.average.model.state_dict(),
            "average_n": self.average.n, "torch_rng": torch.get_rng_state(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "rngs": [crops.rng.getstate() for crops in (self.crops, self.openings)],
        }  # fmt: skip
        save_state(self, state)

    def _load(self) -> None:
        state = load_state(self, self.model.device)
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.n = state["average_n"]
        for optimizer, kept in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        for crops, kept in zip((self.crops, self.openings), state["rngs"], strict=True):
            crops.rng.setstate(kept)
        torch.set_rng_state(state["torch_rng"].cpu())


def start_model(
    codec: EncodecModel, start: Path | None, args: argparse.Namespace
) -> MusicgenForConditionalGeneration:
    """Return a fresh model around the codec, or the one in the folder `start`, ready to train."""
    model = build_model(codec)
    if start is None:
        start_embeddings(model)
    else:
        model.load_state_dict(load_model(start).state_dict())
        model.audio_encoder.load_state_dict(codec.state_dict())  # its decoder may have been trained further
    if start is None or args.restart_text:
        start_text(model, 0.0 if args.text_only else 0.3)
    model.audio_encoder.requires_grad_(False)
    if args.text_only:
        freeze_music(model)
    model.train()
    model.audio_encoder.eval()
    return model


def train_lm(args: argparse.Namespace) -> LmTraining:
    """Train until `--audio-s` are seen or SIGTERM arrives; see the module's docstring."""
    return run_training(LmTraining(args), args, measure_held_out)


def measure_held_out(training: LmTraining, recent: list[list[float]]) -> dict[str, Any]:
    """Return the averaged model's held-out losses, the gain from captions, and the last step's losses."""
    model, tokenizer = training.average.model, training.tokenizer
    held = evaluate_model(model, tokenizer, *training.checks).mean(0)
    return {
        "last_losses": [round(loss, 4) for loss in recent[-1]],
        "heldout": [round(float(loss), 4) for loss in held], "heldout_mean": round(float(held.mean()), 4),
        "text_gain": measure_gain(model, tokenizer, *training.checks),
    }  # fmt: skip


def write_text(segments: Segments, captioner: Captioner, seed: int) -> list[str]:
    """Write captions to train the tokenizer on: two per training segment."""
    rng = random.Random(seed)
    return [
        captioner.write(int(i), float(s), 10.0, rng)
        for i, s in zip(segments.track, segments.start_s, strict=True)
        for _ in range(2)
    ]


def main() -> None:
    """Run the command line."""
    parser = build_parser(__doc__)
    add_training_options(parser, "lm", 5e5)
    add = parser.add_argument
    add("--start", type=Path, help="a whole model to start from, if there is nothing to resume")
    add("--batch", type=int, default=6, help="crops")
    add("--restart-text", action="store_true", help="with --start: give the text side fresh weights")
    add("--text-only", action="store_true", help="train the text side and cross-attention alone")
    add("--crop-s", type=float, default=10.0, help="length of each crop")
    add("--rate-factor", type=float, default=1.0, help="factor of the learning rates")
    add("--opening-every", type=int, default=3, help="steps from one on short crops to the next; 0 is never")
    add("--device", default="cpu")
    add("--bf16", action="store_true", help="matrix products in bfloat16: for GPUs, and CPUs with AMX")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    train_lm(args)


if __name__ == "__main__":
    main()
