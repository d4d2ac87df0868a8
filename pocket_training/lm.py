"""Stage 3, language model: train text encoder and decoder together on the codec's codes, then export.

    python -m pocket_training.lm --work WORK --minutes 35

Crops of ten seconds, delay pattern, cross-entropy per codebook over all frames; every third step on crops of
1.28 s, from which the text side learns (in long ones the music itself says what comes).  The caption is dropped in
one crop of five: MusicGen's null condition, zero states and zero mask, which guidance needs.  The
matrices of the decoder's self-attention and feed-forward learn by Muon (Jordan 2024: fewer steps than AdamW),
the rest by AdamW; the learning rate follows the wall clock and ends at zero; an exponential average of the
weights is what is exported.

`--resume WEIGHTS --minutes 0` only puts `WORK/codec` into a finished model.

First it analyses the tracks (`WORK/heard.pkl`) and encodes segments of them for `--encode-minutes`
(`WORK/segments.npz`); both are kept and reused.  Writes `WORK/lm.log.jsonl` and the package's `weights/`, a
snapshot from `--snapshot-minutes` on.  Seed 0; a faster machine takes more steps.
"""

import argparse
import copy
import json
import os
import pickle
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, multiprocessing, nn
from transformers import EncodecModel, MusicgenForConditionalGeneration, T5Tokenizer

from lora_bench.models.pocket import WEIGHTS
from pocket_training.captions import Captioner, Heard, analyse_track
from pocket_training.corpus import load_tracks, open_audio
from pocket_training.data import Track
from pocket_training.export import export_model, load_model
from pocket_training.lm_parts import (
    Average,
    build_optimizers,
    compute_losses,
    evaluate_model,
    freeze_music,
    measure_gain,
    share_gradients,
    start_embeddings,
    start_text,
)
from pocket_training.shapes import FRAME_RATE_HZ, N_CODEBOOKS, build_model
from pocket_training.tokenizer import load_tokenizer, train_tokenizer
from pocket_training.tokens import CodeCrops, Segments, cut_codes, encode_segments, load_segments

CROP_FRAMES = 10 * FRAME_RATE_HZ  # of the card
OPENING_FRAMES = 64  # 1.28 s: where there is little music yet to go by, and the caption is all that is known
CAPTION_DROPOUT = 0.2


def analyse_tracks(work: Path, tracks: list[Track]) -> list[Heard]:
    """Tempo, key and windows of all tracks, kept in `WORK/heard.pkl`."""
    cache = work / "heard.pkl"
    if cache.is_file():
        return pickle.loads(cache.read_bytes())  # our own file
    audio = open_audio(work)
    heard = [analyse_track(audio[t.start : t.start + t.length]) for t in tracks]
    cache.write_bytes(pickle.dumps(heard))
    return heard


def get_rate_frac(frac: float) -> float:
    """Warm up for 4 % of the time, hold until 40 %, fall to zero linearly."""
    return max(frac, 1e-3) / 0.04 if frac < 0.04 else 1.0 if frac < 0.4 else max(0.0, (1 - frac) / 0.6)


def prepare_codes(args: argparse.Namespace) -> None:
    """Analyse and encode the tracks, unless that has been done: once, before the processes part."""
    tracks = load_tracks(args.work)
    analyse_tracks(args.work, tracks)
    if not (args.work / "segments.npz").is_file():
        codec = EncodecModel.from_pretrained(args.work / "codec").eval()
        encode_segments(args.work, tracks, codec, args.encode_minutes, args.seed)


def train_lm(args: argparse.Namespace, rank: int = 0) -> None:
    """The whole stage, as process `rank`. See the module's docstring."""
    torch.manual_seed(args.seed)
    tracks = load_tracks(args.work)
    captioner = Captioner(tracks, analyse_tracks(args.work, tracks))
    codec = EncodecModel.from_pretrained(args.work / "codec").eval()
    segments = load_segments(args.work)
    held_out = np.array([tracks[i].split == "heldout" for i in segments.track])
    train = segments.take(~held_out)
    crop_frames = round(args.crop_s * FRAME_RATE_HZ)
    crops = CodeCrops(train, captioner, crop_frames, args.seed + 1000 * rank)
    openings = CodeCrops(train, captioner, OPENING_FRAMES, args.seed + 1000 * rank + 500)
    tokenizer = train_tokenizer(write_text(train, captioner, args.seed))
    checks = cut_codes(segments.take(held_out), captioner, crop_frames, 42, args.seed)
    print(
        f"{len(train.track)} training segments of 24 s, {held_out.sum()} held out, {len(tokenizer)} pieces",
        flush=True,
    )
    model, tokenizer = _start_model(args, codec, tokenizer)
    optimizers, average = build_optimizers(model, args.text_only), Average(copy.deepcopy(model), 0.99)
    log = (args.work / "lm.log.jsonl").open("a", buffering=1)
    clock = torch.zeros(1)
    torch.manual_seed(args.seed + rank)  # from here on the processes differ: dropout, captions, crops
    rng = torch.Generator().manual_seed(args.seed + rank)
    start, last, step, n_exported = time.monotonic(), time.monotonic(), 0, 0
    recent: list[Tensor] = []
    while True:
        clock[0] = time.monotonic() - start
        if distributed.is_initialized():
            distributed.broadcast(clock, 0)  # all processes stop at the same step
        elapsed = float(clock)
        if elapsed >= args.minutes * 60:
            break
        frac = get_rate_frac(elapsed / (args.minutes * 60))
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = optimizer.defaults["lr"] * frac * args.rate_factor
        opens = args.opening_every > 0 and step % args.opening_every == args.opening_every - 1
        losses = _take_step(
            model, tokenizer, *_draw(openings if opens else crops, args), optimizers, args, rng
        )
        if not opens:
            recent.append(losses)
        average.update(model)
        step += 1
        if rank == 0 and time.monotonic() - last > args.log_s:
            last = time.monotonic()
            held = evaluate_model(average.model, tokenizer, checks[0], checks[1]).mean(0)
            facts = {
                "step": step, "elapsed_s": round(elapsed), "rate_frac": round(frac, 4),
                "train": _round(torch.stack(recent).mean(0)),
                "heldout": _round(held), "heldout_mean": round(float(held.mean()), 4),
                "audio_s_per_s": round(step * args.batch * args.processes * args.crop_s / elapsed, 1),
                "text_gain": measure_gain(average.model, tokenizer, checks[0], checks[1]),
            }  # fmt: skip
            recent = []
            print(json.dumps(facts), file=log)
            if elapsed > (n_exported + 1) * args.snapshot_minutes * 60:
                n_exported += 1
                export_model(
                    average.model, tokenizer, args.out, {"trained": True, "state": "snapshot", **facts}
                )
    if rank == 0:
        held = evaluate_model(average.model, tokenizer, checks[0], checks[1]).mean(0)
        facts = {
            "trained": True,
            "state": "final",
            "step": step,
            "minutes": args.minutes,
            "heldout": _round(held),
        }
        if step == 0 and args.resume is not None:  # only the codec is new
            facts = json.loads((args.resume / "pocket.json").read_text())
        export_model(average.model, tokenizer, args.out, facts)
        print(json.dumps(facts), file=log)


def _start_model(
    args: argparse.Namespace, codec: EncodecModel, tokenizer: T5Tokenizer
) -> tuple[MusicgenForConditionalGeneration, T5Tokenizer]:
    """A fresh model around the codec, or the one to go on from with its own tokenizer, ready to train."""
    model = build_model(codec)
    if args.resume is None:
        start_embeddings(model)
    else:
        tokenizer = load_tokenizer(args.resume)
        model.load_state_dict(load_model(args.resume).state_dict())
        model.audio_encoder.load_state_dict(codec.state_dict())  # its decoder may have been trained further
    if args.resume is None or args.restart_text:
        start_text(model, 0.0 if args.text_only else 0.3)
    model.audio_encoder.requires_grad_(False)
    if args.text_only:
        freeze_music(model)
    model.train()
    model.audio_encoder.eval()
    return model, tokenizer


def write_text(segments: Segments, captioner: Captioner, seed: int) -> list[str]:
    """Captions to learn the tokenizer from: two of each training segment."""
    rng = random.Random(seed)
    return [
        captioner.write(int(i), float(s), 10.0, rng)
        for i, s in zip(segments.track, segments.start_s, strict=True)
        for _ in range(2)
    ]


def _draw(crops: CodeCrops, args: argparse.Namespace) -> tuple[Tensor, list[str]]:
    """A batch of about as many frames, whatever their crops' length."""
    return crops.draw(max(1, round(args.batch * args.crop_s * FRAME_RATE_HZ / crops.n_frames)))


def _take_step(
    model: MusicgenForConditionalGeneration, tokenizer: T5Tokenizer, codes: Tensor, captions: list[str],
    optimizers: list[torch.optim.Optimizer], args: argparse.Namespace, rng: torch.Generator,
) -> Tensor:  # fmt: skip
    text: Any = tokenizer(captions, return_tensors="pt", padding=True, truncation=True)
    drop = torch.rand(len(codes), generator=rng) < (0.0 if args.text_only else CAPTION_DROPOUT)
    with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        losses = compute_losses(model, codes, dict(text), drop).mean(0)  # (K,)
    losses.mean().backward()
    share_gradients(model)
    nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], 1.0)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return losses.detach()


def _round(values: Tensor) -> list[float]:
    assert values.shape == (N_CODEBOOKS,)
    return [round(float(v), 4) for v in values]


def _run_process(rank: int, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    if args.processes > 1:
        meeting = args.work / f"processes-{os.getppid()}"
        store = f"file://{meeting.resolve()}"
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=args.processes)
    train_lm(args, rank)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="working folder of the earlier stages")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the finished model")
    parser.add_argument("--minutes", type=float, default=35.0, help="of training")
    parser.add_argument("--encode-minutes", type=float, default=6.0, help="of encoding, if not done yet")
    parser.add_argument("--snapshot-minutes", type=float, default=10.0)
    parser.add_argument("--batch", type=int, default=3, help="crops in each process")
    parser.add_argument("--log-s", type=float, default=90.0, help="between evaluations")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--resume", type=Path, default=None, help="a folder that this stage wrote, to go on from"
    )
    parser.add_argument("--restart-text", action="store_true", help="with --resume: start the text side anew")
    parser.add_argument(
        "--text-only", action="store_true", help="train the text side and cross-attention alone"
    )
    parser.add_argument("--crop-s", type=float, default=10.0, help="of each crop")
    parser.add_argument("--rate-factor", type=float, default=1.0, help="of the learning rates")
    parser.add_argument("--processes", type=int, default=2, help="each with its own batch")
    parser.add_argument(
        "--opening-every", type=int, default=3, help="every how many steps one on short crops; 0 never"
    )
    parser.add_argument("--bf16", action="store_true", help="matrix products in bfloat16: for CPUs with AMX")
    args = parser.parse_args()
    prepare_codes(args)
    if args.processes == 1:
        _run_process(0, args)
    else:
        multiprocessing.spawn(_run_process, (args,), nprocs=args.processes)


if __name__ == "__main__":
    main()
