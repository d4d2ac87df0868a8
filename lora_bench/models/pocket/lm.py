"""Stage 3, language model: train text encoder and decoder together on the codec's codes, then export.

    python -m lora_bench.models.pocket.lm --work WORK --minutes 35

Crops of ten seconds, delay pattern, cross-entropy per codebook over all frames.  The caption is dropped in
one crop of five: MusicGen's null condition, zero states and zero mask, which guidance needs.  The
matrices of the decoder's layers learn by Muon (Jordan 2024: fewer steps than AdamW),
the rest by AdamW; the learning rate follows the wall clock and ends at zero; an exponential average of the
weights is what is exported.

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
from torch.nn import functional as F
from transformers import EncodecModel, MusicgenForConditionalGeneration, T5Tokenizer

from . import WEIGHTS
from .captions import Captioner, Heard, analyse_track
from .corpus import load_tracks, open_audio
from .data import Track
from .export import export_model
from .shapes import FRAME_RATE_HZ, N_CODEBOOKS, build_model
from .tokenizer import train_tokenizer
from .tokens import CodeCrops, Segments, cut_codes, delay_codes, encode_segments, load_segments

CROP_FRAMES = 10 * FRAME_RATE_HZ
CAPTION_DROPOUT = 0.2
PEAK_RATE, MUON_PEAK_RATE = 2e-3, 4e-3


def analyse_tracks(work: Path, tracks: list[Track]) -> list[Heard]:
    """Tempo, key and windows of all tracks, kept in `WORK/heard.pkl`."""
    cache = work / "heard.pkl"
    if cache.is_file():
        return pickle.loads(cache.read_bytes())  # our own file
    audio = open_audio(work)
    heard = [analyse_track(audio[t.start : t.start + t.length]) for t in tracks]
    cache.write_bytes(pickle.dumps(heard))
    return heard


def compute_losses(
    model: MusicgenForConditionalGeneration,
    codes: Tensor,
    text: dict[str, Tensor],
    drop: Tensor | None = None,
) -> Tensor:
    """Cross-entropy of each crop and codebook in nats.

    Args:
        model: The whole model; its codec is not used.
        codes: (B, K, T).
        text: The tokenizer's `input_ids` and `attention_mask`, (B, L).
        drop: (B,), true where the caption is replaced by the null condition; None drops none.

    Returns:
        (B, K), mean over the T frames.
    """
    inputs, targets, mask = delay_codes(codes)
    B, K, P = inputs.shape
    attention = text["attention_mask"]
    if drop is not None:
        attention = attention * (~drop)[:, None]
    # the encoder must see its tokens even where the decoder does not: attention over nothing is not a number
    states = model.text_encoder(input_ids=text["input_ids"], attention_mask=text["attention_mask"])[0]
    states = model.enc_to_dec_proj(states) * attention[..., None]
    logits = model.decoder(
        input_ids=inputs.reshape(B * K, P),
        encoder_hidden_states=states,
        encoder_attention_mask=attention,
        use_cache=False,
    ).logits  # (B x K, P, V)
    logits = logits.view(B, K, P, -1)[:, mask]  # (B, K x T, V): the positions that hold a code
    loss = F.cross_entropy(logits.flatten(0, 1), targets[:, mask].flatten(), reduction="none")
    return loss.view(B, K, -1).mean(-1)


def evaluate_model(
    model: MusicgenForConditionalGeneration,
    tokenizer: T5Tokenizer,
    codes: Tensor,
    captions: list[str],
    batch: int = 8,
) -> Tensor:
    """Losses (N, K) of crops (N, K, T) under their captions."""
    was_training = model.training
    model.eval()
    losses = []
    with torch.no_grad():
        for at in range(0, len(codes), batch):
            text = tokenizer(captions[at : at + batch], return_tensors="pt", padding=True, truncation=True)
            losses.append(compute_losses(model, codes[at : at + batch], dict(text)))
    model.train(was_training)
    return torch.cat(losses)


@torch.no_grad()
def start_embeddings(model: MusicgenForConditionalGeneration) -> None:
    """Start embeddings and heads at the codec's own code vectors, each codebook in its own quarter of the space.

    From random rows of 0.02, as MusicGen starts, the codes are drowned by the sinusoidal positions (about 0.7) and
    which codes sound alike must be learnt code by code: 80 steps ended at the unigram.
    """
    width = model.decoder.config.hidden_size
    rotation = torch.linalg.qr(torch.randn(width, width))[0] * (width / N_CODEBOOKS) ** 0.5
    for k in range(N_CODEBOOKS):
        vectors = model.audio_encoder.quantizer.layers[k].codebook.embed  # (1024, D)
        vectors = (vectors - vectors.mean(0)) / vectors.std()
        rows = vectors @ rotation[k * vectors.shape[1] : (k + 1) * vectors.shape[1]]  # (1024, width)
        rows = rows / rows.std()
        model.decoder.model.decoder.embed_tokens[k].weight[: len(rows)] = 0.5 * rows
        model.decoder.lm_heads[k].weight[: len(rows)] = 0.05 * rows


def build_optimizers(model: MusicgenForConditionalGeneration) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the decoder's layers, AdamW for all else that is trained."""
    matrices = [p for name, p in model.decoder.named_parameters() if ".layers." in name and p.ndim == 2]
    chosen = {id(p) for p in matrices}
    modules: tuple[nn.Module, ...] = (model.decoder, model.text_encoder, model.enc_to_dec_proj)
    rest = [p for module in modules for p in module.parameters() if id(p) not in chosen and p.requires_grad]
    muon = torch.optim.Muon(matrices, lr=MUON_PEAK_RATE, weight_decay=0.05, ns_steps=4, adjust_lr_fn="match_rms_adamw")
    return [muon, torch.optim.AdamW(rest, lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01)]


def get_rate_frac(frac: float) -> float:
    """Warm up for 4 % of the time, hold until 40 %, fall to zero linearly."""
    return max(frac, 1e-3) / 0.04 if frac < 0.04 else 1.0 if frac < 0.4 else max(0.0, (1 - frac) / 0.6)


class Average:
    """Exponential moving average of the weights."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay, self.n = copy.deepcopy(model).eval(), decay, 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step's weights in; the first steps count less of the start."""
        self.n += 1
        decay = min(self.decay, self.n / (self.n + 9))
        ours, theirs = list(self.model.parameters()), [p.detach() for p in model.parameters()]
        torch._foreach_lerp_(ours, theirs, 1 - decay)


def share_gradients(model: nn.Module) -> None:
    """Average gradients over the processes."""
    if not distributed.is_initialized():
        return
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
        grad.copy_(mean.view_as(grad))


def train_lm(args: argparse.Namespace, rank: int = 0) -> None:
    """The whole stage, as process `rank`. See the module's docstring."""
    torch.manual_seed(args.seed)
    tracks = load_tracks(args.work)
    captioner = Captioner(tracks, analyse_tracks(args.work, tracks))
    codec = EncodecModel.from_pretrained(args.work / "codec").eval()
    if not (args.work / "segments.npz").is_file():
        encode_segments(args.work, tracks, codec, args.encode_minutes, args.seed)
    segments = load_segments(args.work)
    held_out = np.array([tracks[i].split == "heldout" for i in segments.track])
    train = segments.take(~held_out)
    crops = CodeCrops(train, captioner, CROP_FRAMES, args.seed + 1000 * rank)
    tokenizer = train_tokenizer(write_text(train, captioner, args.seed))
    checks = cut_codes(segments.take(held_out), captioner, CROP_FRAMES, 24, args.seed)
    print(
        f"{len(train.track)} training segments of 24 s, {held_out.sum()} held out, {len(tokenizer)} pieces",
        flush=True,
    )
    model = build_model(codec)
    start_embeddings(model)
    model.audio_encoder.requires_grad_(False)
    model.train()
    model.audio_encoder.eval()
    optimizers, average = build_optimizers(model), Average(model, 0.99)
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
        for optimizer, peak in zip(optimizers, (MUON_PEAK_RATE, PEAK_RATE), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * frac
        recent.append(_take_step(model, tokenizer, crops, optimizers, args.batch, rng))
        average.update(model)
        step += 1
        if rank == 0 and time.monotonic() - last > args.log_s:
            last = time.monotonic()
            held = evaluate_model(average.model, tokenizer, checks[0], checks[1]).mean(0)
            facts = {
                "step": step, "elapsed_s": round(elapsed), "rate_frac": round(frac, 4),
                "train": _round(torch.stack(recent).mean(0)),
                "heldout": _round(held), "heldout_mean": round(float(held.mean()), 4),
                "audio_s_per_s": round(step * args.batch * args.processes * CROP_FRAMES / FRAME_RATE_HZ / elapsed, 1),
            }  # fmt: skip
            recent = []
            print(json.dumps(facts), file=log)
            print(json.dumps(facts), flush=True)
            if elapsed > (n_exported + 1) * args.snapshot_minutes * 60:
                n_exported += 1
                export_model(
                    average.model, tokenizer, args.out, {"trained": True, "state": "snapshot", **facts}
                )
    if rank != 0:
        return
    held = evaluate_model(average.model, tokenizer, checks[0], checks[1]).mean(0)
    facts = {
        "trained": True,
        "state": "final",
        "step": step,
        "minutes": args.minutes,
        "heldout": _round(held),
        "heldout_mean": float(held.mean()),
    }
    export_model(average.model, tokenizer, args.out, facts)
    print(json.dumps(facts), file=log)
    print(json.dumps(facts), flush=True)


def write_text(segments: Segments, captioner: Captioner, seed: int) -> list[str]:
    """Captions to learn the tokenizer from: two of each training segment."""
    rng = random.Random(seed)
    return [
        captioner.write(int(i), float(s), 10.0, rng)
        for i, s in zip(segments.track, segments.start_s, strict=True)
        for _ in range(2)
    ]


def _take_step(
    model: MusicgenForConditionalGeneration, tokenizer: T5Tokenizer, crops: CodeCrops,
    optimizers: list[torch.optim.Optimizer], batch: int, rng: torch.Generator,
) -> Tensor:  # fmt: skip
    codes, captions = crops.draw(batch)
    text: Any = tokenizer(captions, return_tensors="pt", padding=True, truncation=True)
    drop = torch.rand(batch, generator=rng) < CAPTION_DROPOUT
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
    parser.add_argument("--batch", type=int, default=3, help="crops of ten seconds, in each process")
    parser.add_argument("--log-s", type=float, default=90.0, help="between evaluations")
    parser.add_argument("--threads", type=int, default=1, help="of each process")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="each with its own batch")
    args = parser.parse_args()
    if args.processes == 1:
        _run_process(0, args)
    else:
        multiprocessing.spawn(_run_process, (args,), nprocs=args.processes)


if __name__ == "__main__":
    main()
