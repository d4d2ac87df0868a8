"""Stage 2, codec: train EnCodec with audiocraft's parts, then convert it to transformers' `EncodecModel`.

    python -m lora_bench.models.pocket.codec --work WORK --minutes 25

Three phases.  A short warm-up without quantizer; then encoder, quantizer and decoder together on a waveform
L1 and a multi-scale mel loss, gradients balanced by audiocraft's `Balancer`; at last encoder and codebooks
are frozen, so that the codes stand still, and the decoder alone goes on, with a loss that keeps peaks (with
`--adversarial` against a small multi-scale STFT discriminator, which two CPU cores cannot afford).  `--resume
CODEC --frozen-frac 1` trains a finished codec's decoder alone: codes, and so the language model, stay.

Writes `WORK/codec/` (an `EncodecModel` folder), `WORK/codec_phase1/` (the same codes, the decoder not yet
finished: the language model's stage can encode with it already) and `WORK/codec.log.jsonl`.  The learning
rate follows the wall clock, so that the stage ends when it was told to; seed 0 fixes crops and initial
weights, but a faster machine takes more steps.  Preload tcmalloc or jemalloc: it nearly doubles the speed.
Needs the `audiocraft` extra.
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, distributed, multiprocessing
from torch.nn import functional as F
from transformers import EncodecModel

from lora_bench.models.bridges.tensors import codec_to_audiocraft

from .codec_parts import (
    MelLoss,
    PocketCodec,
    build_adversary,
    check_conversion,
    save_codec,
    start_codebooks,
    start_weights,
)
from .corpus import CropSampler, cut_held_out, load_tracks
from .measure import compute_perplexity, compute_si_sdr
from .shapes import SAMPLE_RATE_HZ

CROP_S = 1.0
WARM_UP_FRAC = 0.05  # of the time before the freeze
PEAK_RATE, FROZEN_PEAK_RATE = 1e-3, 4e-4
LOG_S = 30.0
WEIGHTS = {"l1": 0.25, "mel": 2.0}
FROZEN_WEIGHTS = {"l1": 0.25, "mel": 1.0, "peaks": 1.0}
ADVERSARIAL_WEIGHTS = {**FROZEN_WEIGHTS, "adv": 1.5, "feat": 2.0}


def measure_codec(codec: PocketCodec, audio: Tensor, mel: MelLoss) -> dict[str, Any]:
    """Mel loss, SI-SDR (dB) and codebook perplexities on held-out crops (N, 1, samples)."""
    codec.eval()
    with torch.no_grad():
        fake, codes, _ = codec(audio)
    return {
        "heldout_mel": float(mel(fake, audio)),
        "heldout_level_db": float(10 * (fake.pow(2).mean() / audio.pow(2).mean()).log10()),
        "heldout_si_sdr_db": float(compute_si_sdr(fake, audio).mean()),
        "heldout_perplexity": [round(p, 1) for p in compute_perplexity(codes)],
    }


def get_learning_rate(frac: float, peak: float) -> float:
    """Warm up for 2 %, hold until 50 %, fall linearly to 3 % of the peak."""
    if frac < 0.02:
        return peak * max(frac, 1e-4) / 0.02
    return peak * (1.0 if frac < 0.5 else max(0.03, (1 - frac) / 0.5))


def _broadcast(tensor: Tensor) -> None:
    """Take process 0's values."""
    if distributed.is_initialized():
        distributed.broadcast(tensor, 0)


def _share_step(codec: PocketCodec) -> None:
    """Average gradients and codebooks over the processes."""
    if not distributed.is_initialized():
        return
    grads = [p.grad for p in codec.parameters() if p.grad is not None]
    books = [b for b in codec.quantizer.buffers() if b.is_floating_point()]
    flat = torch.cat([t.flatten() for t in (*grads, *books)])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for tensor, mean in zip((*grads, *books), flat.split([t.numel() for t in (*grads, *books)]), strict=True):
        tensor.copy_(mean.view_as(tensor))


class CodecTraining:
    """One process's training: phases, optimizer and losses."""

    def __init__(self, args: argparse.Namespace, rank: int) -> None:
        """Args: the command line's arguments, and the number of this process."""
        from audiocraft.losses import Balancer

        torch.manual_seed(args.seed)
        self.args, self.rank = args, rank
        tracks = load_tracks(args.work)
        crop = int(CROP_S * SAMPLE_RATE_HZ)
        train = [track for track in tracks if track.split == "train"]
        self.sampler = CropSampler(args.work, train, crop, args.seed + 1000 * rank)
        self.held_out = cut_held_out(args.work, tracks, 2 * crop, 24)
        self.codec, self.mel = PocketCodec(), MelLoss()
        start_weights(self.codec)
        self.phase: Literal["warm_up", "joint", "frozen"] = "warm_up"
        if args.resume is not None:
            state = EncodecModel.from_pretrained(args.resume).state_dict()
            self.codec.load_state_dict(codec_to_audiocraft(state))
            self.phase = "joint"
        self.balancer: Any = Balancer(WEIGHTS, monitor=True)
        self.adversary: Any = None
        self.optimizer = torch.optim.AdamW(
            self.codec.parameters(), lr=PEAK_RATE, betas=(0.8, 0.99), weight_decay=1e-4
        )
        self.step = 0

    def set_phase(self, elapsed_s: float) -> None:
        """Change phase and learning rate by the clock."""
        total_s = self.args.minutes * 60
        split_s = total_s * (1 - self.args.frozen_frac)
        if self.phase == "warm_up" and elapsed_s > WARM_UP_FRAC * split_s:
            self.phase = "joint"
            start_codebooks(self.codec, self.sampler.draw(160))
            for buffer in self.codec.quantizer.buffers():
                _broadcast(buffer)
        if self.phase == "joint" and elapsed_s > split_s:
            self.phase = "frozen"
            self._freeze()
        if self.phase == "frozen":
            rate = get_learning_rate((elapsed_s - split_s) / (total_s - split_s), FROZEN_PEAK_RATE)
        else:
            rate = get_learning_rate(elapsed_s / split_s, PEAK_RATE)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _freeze(self) -> None:
        from audiocraft.losses import Balancer

        if self.rank == 0:
            save_codec(self.codec, self.args.work / "codec_phase1")
        if self.args.adversarial:
            self.adversary = build_adversary(3e-4)
        self.balancer = Balancer(
            ADVERSARIAL_WEIGHTS if self.args.adversarial else FROZEN_WEIGHTS, monitor=True
        )
        self.codec.encoder.requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.codec.decoder.parameters(), betas=(0.8, 0.99))

    def take_step(self) -> dict[str, float]:
        """One batch; returns its losses."""
        self.codec.train()
        real = self.sampler.draw(self.args.batch, augment=True)
        self.optimizer.zero_grad(set_to_none=True)
        fake, commit = self._reconstruct(real)
        mel, peaks = self.mel.measure_both(fake, real)
        losses = {"l1": F.l1_loss(fake, real), "mel": mel}
        if self.phase == "frozen":
            losses["peaks"] = peaks
        if self.adversary is not None:
            if self.step % 2 == 0:  # every second step: the decoder moves slowly by now
                self.adversary.train_adv(fake, real)
            losses["adv"], losses["feat"] = self.adversary(fake, real)
        if commit.requires_grad:
            commit.backward(retain_graph=True)  # the balancer's own backward starts at `fake`
        self.balancer.backward(losses, fake)
        _share_step(self.codec)
        torch.nn.utils.clip_grad_norm_([p for p in self.codec.parameters() if p.grad is not None], 1.0)
        self.optimizer.step()
        self.step += 1
        return {name: float(loss.detach()) for name, loss in (losses | {"commit": commit}).items()}

    def _reconstruct(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction (B, 1, samples) and commitment loss, as the phase has it."""
        codec = self.codec
        if self.phase == "joint":
            fake, _, commit = codec(real)
            return fake, commit
        if self.phase == "warm_up":
            return codec.decoder(codec.encoder(real)), real.new_zeros(())
        with torch.no_grad():
            hidden = codec.quantizer.decode(codec.quantizer.encode(codec.encoder(real)))
        return codec.decoder(hidden), real.new_zeros(())

    def write_log(self, values: dict[str, float], elapsed_s: float) -> None:
        """One line with held-out figures; keeps the codec as it is in `WORK/codec_last/`."""
        facts = {**values, "phase": self.phase, "step": self.step, "elapsed_s": round(elapsed_s)}
        facts["audio_s_per_s"] = round(
            self.step * self.args.batch * self.args.processes * CROP_S / max(elapsed_s, 1), 1
        )
        facts |= measure_codec(self.codec, self.held_out, self.mel)
        with (self.args.work / "codec.log.jsonl").open("a") as log:
            print(json.dumps(facts), file=log)
        print(json.dumps(facts), flush=True)
        save_codec(self.codec, self.args.work / "codec_last")


def train_codec(args: argparse.Namespace, rank: int) -> PocketCodec:
    """All phases, as process `rank`. See the module's docstring."""
    training = CodecTraining(args, rank)
    start, last_s, clock = time.monotonic(), 0.0, torch.zeros(1)
    while True:
        clock[0] = time.monotonic() - start
        _broadcast(clock)  # all processes change phase at the same step
        elapsed_s = float(clock)
        if elapsed_s >= args.minutes * 60:
            return training.codec
        training.set_phase(elapsed_s)
        values = training.take_step()
        if rank == 0 and elapsed_s - last_s > LOG_S:
            last_s = elapsed_s
            training.write_log(values, elapsed_s)


def _run_process(rank: int, args: argparse.Namespace) -> None:
    torch.set_num_threads(1 if args.processes > 1 else args.threads)
    if args.processes > 1:
        meeting = args.work / f"processes-{os.getppid()}"  # a new one each time: an old file misleads gloo
        store = f"file://{meeting.resolve()}"
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=args.processes)
    codec = train_codec(args, rank)
    if rank == 0:
        model = save_codec(codec, args.work / "codec")
        audio = cut_held_out(args.work, load_tracks(args.work), 2 * SAMPLE_RATE_HZ, 8)
        print(
            "conversion: codes equal, largest difference of the audio", check_conversion(codec, model, audio)
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="working folder of the data stage")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--frozen-frac", type=float, default=0.15, help="part of the time for phase two")
    parser.add_argument(
        "--adversarial", action="store_true", help="phase two against a discriminator (wants a GPU)"
    )
    parser.add_argument("--batch", type=int, default=8, help="crops of one second")
    parser.add_argument("--threads", type=int, default=2, help="of a single process")
    parser.add_argument(
        "--processes", type=int, default=2, help="one core each: small convolutions do not fill two threads"
    )
    parser.add_argument(
        "--resume", type=Path, default=None, help="an EncodecModel folder of this stage to go on from"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.processes == 1:
        _run_process(0, args)
    else:
        multiprocessing.spawn(_run_process, (args,), nprocs=args.processes)


if __name__ == "__main__":
    main()
