"""Stage 2, codec: train EnCodec with audiocraft's parts, then convert it to transformers' `EncodecModel`.

    python -m pocket_training.codec --work WORK --threads 1

The same command resumes: every `--save-minutes`, at the end and on SIGTERM the state of the training is saved to
`WORK/codec/training.pt`, with the averaged codec in `WORK/codec/` (an `EncodecModel` folder).  Every
`--check-every-s` audio-seconds a line of held-out figures is added to `WORK/codec/checks.jsonl`.  Phases follow
the audio-seconds seen, not the clock, so that a resumed run equals one without a break:

- `warm_up`: encoder and decoder alone (none with `--start`, which starts from an `EncodecModel`);
- `joint`: with the quantizer, on a waveform L1 and a multi-scale mel loss, balanced by audiocraft's `Balancer`;
- `adversarial`: the same against a multi-scale STFT discriminator, three times as slow;
- `frozen`: encoder and codebooks stay as they are, so that a language model can learn their codes meanwhile; only
  the decoder is trained.

One crop in six is synthetic (`patches.py`).  Preload tcmalloc or jemalloc: it nearly doubles the speed.  Two processes
of one thread use two cores, two threads one and a half:

    torchrun --nproc-per-node 2 -m pocket_training.codec --work WORK --threads 1

Needs the `audiocraft` extra.
"""

import argparse
import math
import os
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from pocket_training.batches import Batches
from pocket_training.codec_eval import Codec, cut_checks, measure_codec
from pocket_training.codec_losses import GradientNorms, MelLoss, build_adversary, build_balancer
from pocket_training.codec_parts import (
    PocketCodec,
    check_conversion,
    load_codec,
    restart_codes,
    save_codec,
    start_codebooks,
    start_weights,
)
from pocket_training.lm_parts import Average
from pocket_training.loop import (
    add_training_options,
    build_parser,
    is_first,
    load_state,
    run_training,
    save_state,
)
from pocket_training.shapes import FRAME_RATE_HZ, SAMPLE_RATE_HZ, build_codec_config

CROP_S = 1
RATE_WARM_UP_S = 2000  # audio-seconds until the learning rate is at its peak
RESTART_STEPS = 20  # between two restarts of dead codes
WEIGHTS = {"l1": 0.5, "mel": 2.0}
ADVERSARIAL_WEIGHTS = {**WEIGHTS, "adv": 1.0, "feat": 2.0}

Phase = Literal["warm_up", "joint", "adversarial", "frozen"]


def get_phase(seen_s: float, now: Phase, args: argparse.Namespace) -> Phase:
    """Return the phase after `seen_s` audio-seconds, given the phase until now."""
    if seen_s >= args.frozen_from_s:
        return "frozen"
    if seen_s >= args.adversarial_from_s:
        return "adversarial"
    return "warm_up" if now == "warm_up" and seen_s < args.warm_up_s else "joint"


def get_rate_frac(seen_s: float, audio_s: float) -> float:
    """Return the learning rate's factor: it warms up, holds until 80 % of `audio_s`, falls linearly to 3 %."""
    return min(1.0, seen_s / RATE_WARM_UP_S + 0.01, max(0.03, (1 - seen_s / audio_s) / 0.2))


class CodecTraining:
    """Networks, optimizer and samplers at some step of the training."""

    def __init__(self, args: argparse.Namespace) -> None:
        """Start, or resume from `WORK/codec/training.pt`."""
        torch.manual_seed(args.seed)
        self.args, self.folder = args, args.work / args.run
        self.folder.mkdir(parents=True, exist_ok=True)
        self.device = torch.device(args.device)
        self.n_peers = distributed.get_world_size() if distributed.is_initialized() else 1
        seed = (args.seed, distributed.get_rank() if distributed.is_initialized() else 0)
        self.batches = Batches(args.work, CROP_S * SAMPLE_RATE_HZ, args.batch, args.patches_frac, seed)
        self.phase: Phase = "warm_up"
        self.step, self.seen_s, self.wall_s, self.cpu_s = 0, 0, 0.0, 0.0
        self.mel, self.norms = MelLoss().to(self.device), GradientNorms()
        self.adversary: Any = None
        config = build_codec_config(args.codebook_size, args.filters, args.lstm_layers)
        self.codec = PocketCodec(config).to(self.device)
        is_resumed = (self.folder / "training.pt").is_file()
        if not is_resumed:
            self._start()
        self.average = Average(PocketCodec(config).to(self.device), 0.999)
        self.average.model.load_state_dict(self.codec.state_dict())
        self.optimizer = torch.optim.AdamW(
            self.codec.parameters(), lr=args.rate, betas=(0.8, 0.99), weight_decay=1e-4
        )
        if is_resumed:
            self._load()
        self.feed = self.batches.iterate(self.step, args.workers)

    def _start(self) -> None:
        """Set fresh weights, or widened ones of `--start`, whose codebooks stay if they have the right size."""
        start_weights(self.codec)
        if self.args.start is None:
            return
        self.phase = "joint"
        if not load_codec(self.codec, self.args.start):
            self._start_codebooks()

    def _start_codebooks(self) -> None:
        from flashy.distrib import broadcast_model

        n_crops = math.ceil(10 * self.args.codebook_size / (CROP_S * FRAME_RATE_HZ))
        start_codebooks(self.codec, self.batches.draw(n_crops).to(self.device))
        broadcast_model(self.codec)  # each process drew crops of its own

    def _enter(self, phase: Phase) -> None:
        """Enter a phase, also after a resumption: build its networks and freeze the others."""
        if phase == "joint" and self.phase == "warm_up":
            self._start_codebooks()
        if phase == "frozen" and self.phase != "frozen":
            self.codec.load_state_dict(self.average.model.state_dict())
        if self.seen_s >= self.args.adversarial_from_s and self.adversary is None:
            self.adversary = build_adversary(3e-4, self.device)
        self.codec.encoder.requires_grad_(phase != "frozen")
        self.phase = phase

    def take_step(self) -> dict[str, float]:
        """Learn from one batch; return its losses."""
        from flashy.distrib import sync_model

        phase = get_phase(self.seen_s, self.phase, self.args)
        if phase != self.phase:
            self._enter(phase)
        for group in self.optimizer.param_groups:
            group["lr"] = self.args.rate * get_rate_frac(self.seen_s, self.args.audio_s)
        self.codec.train()
        real = next(self.feed).to(self.device)
        self.optimizer.zero_grad(set_to_none=True)
        output, commit = self._reconstruct(real)
        # the losses' gradients end here, and one pass goes back from here
        fake = output.detach().requires_grad_()
        losses = {"l1": F.l1_loss(fake, real), "mel": self.mel(fake, real)}
        if self.adversary is not None:
            if self.step % 2 == 0:
                self.adversary.train_adv(fake, real)
            losses["adv"], losses["feat"] = self.adversary(fake, real)
        weights = WEIGHTS if self.adversary is None else ADVERSARIAL_WEIGHTS
        build_balancer(weights, self.norms).backward(losses, fake)
        if commit.requires_grad:
            torch.autograd.backward([output, commit], [fake.grad, None])
        else:
            output.backward(fake.grad)
        # restarted codes are the first process's own; their mean over processes would be nobody's
        sync_model(self.codec, average_buffers=self.step % RESTART_STEPS != 0)
        torch.nn.utils.clip_grad_norm_([p for p in self.codec.parameters() if p.grad is not None], 1.0)
        self.optimizer.step()
        self.average.update(self.codec)
        self.step += 1
        self.seen_s += self.args.batch * CROP_S * self.n_peers
        return {name: float(loss.detach()) for name, loss in (losses | {"commit": commit}).items()}

    def _reconstruct(self, real: Tensor) -> tuple[Tensor, Tensor]:
        """Return reconstruction (B, 1, samples) and commitment loss of this phase."""
        codec, quantizer, nothing = self.codec, self.codec.quantizer, real.new_zeros(())
        if self.phase == "frozen":
            with torch.no_grad():
                hidden = quantizer.decode(quantizer.encode(codec.encoder(real)))
            return codec.decoder(hidden), nothing
        hidden = codec.encoder(real)
        if self.phase == "warm_up":
            return codec.decoder(hidden), nothing
        result = quantizer(hidden, FRAME_RATE_HZ)
        if self.step % RESTART_STEPS == 0:
            restart_codes(quantizer, hidden, torch.Generator().manual_seed(self.step))
        return codec.decoder(result.x), result.penalty

    def save(self) -> None:
        """Save the state of the training, and the averaged codec."""
        state = {
            "codec": self.codec.state_dict(), "average": self.average.model.state_dict(),
            "average_n": self.average.n, "optimizer": self.optimizer.state_dict(),
            "adversary": None if self.adversary is None else self.adversary.state_dict(),
            "norms": [self.norms.total, self.norms.weight], "phase": self.phase,
        }  # fmt: skip
        save_state(self, state)
        save_codec(self.average.model, self.folder)

    def _load(self) -> None:
        state = load_state(self, self.device)
        self.codec.load_state_dict(state["codec"])
        self.average.model.load_state_dict(state["average"])
        self.average.n = state["average_n"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.phase = state["phase"]
        if state["adversary"] is not None:
            self.adversary = build_adversary(3e-4, self.device)
            self._enter(self.phase)
            self.adversary.load_state_dict(state["adversary"])
        self.norms.total, self.norms.weight = state["norms"]


def train_codec(args: argparse.Namespace) -> CodecTraining:
    """Train until `--audio-s` are seen or SIGTERM arrives; see the module's docstring."""
    training, checks = CodecTraining(args), cut_checks(args.work)

    def check(training: CodecTraining, recent: list[dict[str, float]]) -> dict[str, Any]:
        """Measure the averaged codec on held-out music, and the mean losses since the last check."""
        last = [losses for losses in recent if losses.keys() == recent[-1].keys()]
        means = {name: round(sum(losses[name] for losses in last) / len(last), 4) for name in recent[-1]}
        return {
            "phase": training.phase, **measure_codec(use_parts(training.average.model.eval()), checks),
            "losses": means,
        }  # fmt: skip

    return run_training(training, args, check)


def use_parts(codec: PocketCodec) -> Codec:
    """Return the function that reconstructs crops with a codec in training."""
    device = next(codec.parameters()).device

    def reconstruct(audio: Tensor) -> tuple[Tensor, Tensor]:
        codes = codec.quantizer.encode(codec.encoder(audio.to(device)))
        return codec.decoder(codec.quantizer.decode(codes)).cpu(), codes.cpu()

    return reconstruct


def main() -> None:
    """Run the command line."""
    parser = build_parser(__doc__)
    add_training_options(parser, "codec", 1.5e6)
    add = parser.add_argument
    add(
        "--start",
        type=Path,
        help="folder of a codec or whole model to start from, if there is nothing to resume",
    )
    add("--codebook-size", type=int, default=2048)
    add(
        "--filters",
        type=int,
        default=16,
        help="of the first layer; deeper ones have 2, 4, 8 and 16 times as many",
    )
    add("--lstm-layers", type=int, default=1)
    add("--warm-up-s", type=float, default=3000, help="audio-seconds without quantizer, at the start")
    add("--adversarial-from-s", type=float, default=7e5, help="against the discriminator from here on")
    add(
        "--frozen-from-s",
        type=float,
        default=1.2e6,
        help="the decoder alone from here on, against the discriminator if it is there already",
    )
    add("--patches-frac", type=float, default=0.17, help="part of a batch that is synthetic")
    add("--rate", type=float, default=2e-4, help="peak learning rate")
    add("--batch", type=int, default=12, help="crops of one second")
    add("--device", default="cpu")
    add("--workers", type=int, default=0, help="processes that make batches ahead: for a GPU")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if "WORLD_SIZE" in os.environ:
        distributed.init_process_group("gloo")
    training = train_codec(args)
    if not is_first():
        return
    model = save_codec(training.average.model.cpu(), training.folder)
    audio = training.batches.draw(8)
    print(
        "conversion: codes equal, largest difference of the audio",
        check_conversion(training.average.model, model, audio),
    )


if __name__ == "__main__":
    main()
