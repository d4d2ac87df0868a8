"""Clips of a tiny model in batches of all kinds: run by `test_any_processor.py` under other instruction sets.

    python batch_checks.py FOLDER_OF_A_MODEL

Prints a line for every pair of clips that should be the same and is not.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from lora_bench.models import load_model
from lora_bench.models.base import MusicModel
from lora_bench.models.decoding import loop as stepping
from lora_bench.models.decoding import small_batch_step as streamed_step
from lora_bench.models.decoding.decoder import Decoder, generate_codes
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, ModelSpec
from lora_bench.stages.generate import generate_clips

PROMPT = "a song with drums"
N_CLIPS, N_FRAMES = 18, 10
SIZES = (1, 3, 7, 16)


def read_bits(logits: Tensor, uniform: Tensor, **_: object) -> Tensor:
    """In place of `sample_codes`: codes from all bits of the logits, so that no difference is too small to show."""
    bits = logits.contiguous().view(torch.int32).to(torch.int64).sum(-1)
    return (bits + (uniform * 1e6).long()) % logits.shape[-1]


class Interrupting(SilentProgress):
    """Stops the work in the middle of the second batch."""

    def __init__(self, frames: int) -> None:
        self.left = frames

    def advance(self, n: int = 1, *, note: str = "") -> None:
        self.left -= n
        if self.left < 0:
            raise KeyboardInterrupt


def check_batches(model: MusicModel, **options: object) -> Iterator[str]:
    def decode(clips: Sequence[int], size: int | None) -> Tensor:
        generation = GenerationSpec(batch_size=size, **options)  # type: ignore[arg-type]
        return generate_codes(model, PROMPT, clips, N_FRAMES, generation, SilentProgress())

    # in 8 bits the smallest batches may be decoded by another method than larger ones
    sizes = [size for size in SIZES if size > 2 or "quantization" not in options]
    together = decode(range(N_CLIPS), None)
    method = Decoder(model, GenerationSpec(**options)).method  # type: ignore[arg-type]
    for size in sizes:
        if not torch.equal(decode(range(N_CLIPS), size), together):
            yield f"{model.dtype} {options} {method}: batches of {size}"
    for clips in ([11], [17, 1, 2], range(5, N_CLIPS)):
        if not torch.equal(decode(clips, None), together[list(clips)]):
            yield f"{model.dtype} {options} {method}: clips {list(clips)}"


def check_interrupt(model: MusicModel) -> Iterator[str]:
    clip_s = N_FRAMES / model.info.frame_rate_hz
    with tempfile.TemporaryDirectory() as place:
        whole, parts = Path(place) / "whole", Path(place) / "parts"
        generation = GenerationSpec(n_clips=9, clip_s=clip_s, batch_size=9)
        expected = generate_clips(model, PROMPT, generation, whole, SilentProgress())
        small = generation.model_copy(update={"batch_size": 4})
        try:
            generate_clips(model, PROMPT, small, parts, Interrupting(4 * N_FRAMES))
            yield "the interrupt did not come"
        except KeyboardInterrupt:
            if not 0 < len(list(parts.glob("*.wav"))) < generation.n_clips:
                yield "the interrupt did not come between batches"
        other = generation.model_copy(update={"batch_size": 3})
        resumed = generate_clips(model, PROMPT, other, parts, SilentProgress())
        for one, two in zip(expected.files, resumed.files, strict=True):
            if one.read_bytes() != two.read_bytes():
                yield f"{one.name} after an interrupt"


def main() -> None:
    spec = ModelSpec(id=sys.argv[1])
    stepping.sample_codes = read_bits
    exact = load_model(spec, device="cpu")
    half = load_model(spec.model_copy(update={"dtype": "bfloat16"}), device="cpu")
    wrong = [*check_batches(exact), *check_batches(exact, quantization="int8"), *check_interrupt(exact)]
    streamed_step.can_stream = lambda _: False
    wrong += [*check_batches(exact), *check_batches(half), *check_interrupt(exact)]
    for line in wrong:
        print(line)
    print(f"{len(wrong)} differences, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
