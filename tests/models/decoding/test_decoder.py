"""The decoding loop against transformers' `generate`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
import torch
from scipy import stats

from lora_bench.errors import ModelError, OutOfMemoryError, ResourceError
from lora_bench.models.decoding import decoder as decoding
from lora_bench.models.decoding.decoder import Decoder, generate_batches, generate_codes
from lora_bench.models.decoding.kernels import Kernel
from lora_bench.models.records import DecoderWeights
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.spec.schema import GenerationSpec, LoraSpec

AddAdapter = Callable[[TransformersMusicGen, LoraSpec], None]
PROMPT = "a song with drums"


class Recorder(SilentProgress):
    def __init__(self) -> None:
        self.frames = 0
        self.messages: list[str] = []

    def advance(self, n: int = 1, *, note: str = "") -> None:
        self.frames += n

    def log(self, message: str) -> None:
        self.messages.append(message)


def transformers_codes(
    model: TransformersMusicGen,
    monkeypatch: pytest.MonkeyPatch,
    n_frames: int,
    guidance: float,
    **options: object,
) -> torch.Tensor:
    """Codes [1, K, F] that `generate` hands to the codec."""
    seen: list[torch.Tensor] = []
    codec = model.network.audio_encoder
    original = codec.decode

    def record(codes: torch.Tensor, **kwargs: object) -> object:
        seen.append(codes[0])
        return original(codes, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(codec, "decode", record)
        ids = model._tokenizer([PROMPT], return_tensors="pt")
        # the delay of the last codebook takes three tokens more
        model.network.generate(
            **ids, **{"do_sample": False, **options}, guidance_scale=guidance, max_new_tokens=n_frames + 3
        )
    return seen[0]


def greedy(guidance: float) -> GenerationSpec:
    return GenerationSpec(guidance=guidance, top_k=1)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("n_frames", [6, 30])
def test_greedy_tokens_equal_those_of_transformers(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch, n_frames: int, guidance: float
) -> None:
    expected = transformers_codes(tiny, monkeypatch, n_frames, guidance)
    codes = generate_codes(tiny, PROMPT, [0], n_frames, greedy(guidance), SilentProgress())
    assert expected.shape == (1, 4, n_frames)
    assert torch.equal(codes, expected)


@pytest.mark.parametrize(
    "lora",
    [
        LoraSpec(rank=4, targets="all"),
        LoraSpec(rank=4, targets="all", use_dora=True),
        LoraSpec(rank=4, targets="cross_attention", use_rslora=True),
    ],
    ids=["lora", "dora", "rslora"],
)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_greedy_tokens_with_an_adapter_equal_those_of_transformers(
    tiny: TransformersMusicGen,
    add_adapter: AddAdapter,
    monkeypatch: pytest.MonkeyPatch,
    lora: LoraSpec,
    guidance: float,
) -> None:
    base = generate_codes(tiny, PROMPT, [0], 20, greedy(guidance), SilentProgress())
    add_adapter(tiny, lora)
    expected = transformers_codes(tiny, monkeypatch, 20, guidance)
    codes = generate_codes(tiny, PROMPT, [0], 20, greedy(guidance), SilentProgress())
    assert torch.equal(codes, expected)
    assert not torch.equal(codes, base)


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_stereo_greedy_tokens_equal_those_of_transformers(
    stereo: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch, guidance: float
) -> None:
    left_right: list[torch.Tensor] = []
    codec = stereo.network.audio_encoder
    original = codec.decode

    def record(codes: torch.Tensor, **kwargs: object) -> object:
        left_right.append(codes[0])
        return original(codes, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(codec, "decode", record)
        ids = stereo._tokenizer([PROMPT], return_tensors="pt")
        stereo.network.generate(**ids, do_sample=False, guidance_scale=guidance, max_new_tokens=23)
    codes = generate_codes(stereo, PROMPT, [0], 20, greedy(guidance), SilentProgress())
    assert codes.shape == (1, 8, 20)
    assert torch.equal(codes[:, 0::2], left_right[0])
    assert torch.equal(codes[:, 1::2], left_right[1])


def test_no_padding_token_is_left_and_every_codebook_has_every_frame(tiny: TransformersMusicGen) -> None:
    for n_frames in (1, 2, 5, 30):
        codes = generate_codes(tiny, PROMPT, [0, 1], n_frames, GenerationSpec(), SilentProgress())
        assert codes.shape == (2, 4, n_frames)
        assert int(codes.max()) < tiny.info.codebook_size
        assert int(codes.min()) >= 0


@pytest.mark.parametrize(
    ("guidance", "temperature", "top_k"), [(3.0, 1.0, 20), (1.0, 1.3, 64), (3.0, 0.7, 5)]
)
def test_sampled_first_codes_follow_the_distribution_of_transformers(
    tiny: TransformersMusicGen, guidance: float, temperature: float, top_k: int
) -> None:
    ids = tiny._tokenizer([PROMPT], return_tensors="pt")
    out = tiny.network.generate(
        **ids,
        do_sample=True,
        guidance_scale=guidance,
        temperature=temperature,
        top_k=top_k,
        max_new_tokens=8,
        return_dict_in_generate=True,
        output_scores=True,
    )
    # position 0 of codebook 0: what is drawn for its first frame
    expected = out.scores[0][0].float().softmax(-1).numpy().astype(np.float64)
    n = 4000
    generation = GenerationSpec(guidance=guidance, temperature=temperature, top_k=top_k, batch_size=1000)
    codes = generate_codes(tiny, PROMPT, range(n), 1, generation, SilentProgress())[:, 0, 0].numpy()
    counts = np.bincount(codes, minlength=len(expected))
    assert counts[expected == 0].sum() == 0
    # cells of fewer than five expected draws are pooled, as the test's approximation wants it
    order = np.argsort(expected)
    order = order[expected[order] > 0]
    small = order[expected[order] * n < 5]
    large = order[expected[order] * n >= 5]
    observed = [*counts[large], counts[small].sum()] if len(small) else [*counts[large]]
    wanted = [*expected[large] * n, expected[small].sum() * n] if len(small) else [*expected[large] * n]
    assert stats.chisquare(observed, np.array(wanted) / sum(wanted) * n).pvalue > 1e-3


@pytest.mark.parametrize(
    ("steps", "guidance"),
    [
        ("compiled", 3.0),
        ("by_library", 1.0),
        pytest.param("compiled", 1.0, marks=pytest.mark.slow),
        pytest.param("by_library", 3.0, marks=pytest.mark.slow),
    ],
)
def test_a_clip_is_the_same_alone_and_in_any_batch(
    tiny: TransformersMusicGen, request: pytest.FixtureRequest, steps: str, guidance: float
) -> None:
    if steps == "by_library":
        request.getfixturevalue(steps)

    def decode(clips: Sequence[int], size: int | None) -> torch.Tensor:
        generation = GenerationSpec(batch_size=size, guidance=guidance)
        return generate_codes(tiny, PROMPT, clips, 12, generation, SilentProgress())

    together = decode(range(40), 40)
    for size in (1, 3, 7, 16, 33, None):
        assert torch.equal(together[:20], decode(range(20), size))
    for clips in ([23], [5, 2], [39, 7, 23, 1, 17], range(9, 40)):  # some left, in any order, of any block
        assert torch.equal(decode(clips, None), together[list(clips)])


def test_the_way_of_decoding_is_named(tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Decoder(tiny, GenerationSpec()).method == "compiled steps"
    monkeypatch.setattr("lora_bench.models.decoding.small_batch_step.can_stream", lambda _: False)
    assert Decoder(tiny, GenerationSpec()).method == "torch on cpu, blocks of 16 clips"


def test_other_kernels_draw_the_same_noise(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = generate_codes(tiny, PROMPT, range(6), 30, GenerationSpec(), SilentProgress())
    for block in (16, None):
        monkeypatch.setattr(decoding, "choose_kernel", lambda *_, block=block: Kernel("plain", block))
        for size in (1, 4, None):
            other = generate_codes(
                tiny, PROMPT, range(6), 30, GenerationSpec(batch_size=size), SilentProgress()
            )
            # rounding may turn a draw at a border; with other noise next to no code would be the same
            assert float((compiled == other).float().mean()) > 0.9


@pytest.mark.usefixtures("by_library")
def test_a_block_that_does_not_fit_is_an_error_at_once(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(decoding.KeyValueCache, "allocate", allocate)
    progress = Recorder()
    with pytest.raises(OutOfMemoryError, match="generating a block of 16 clips did not fit into the memory"):
        generate_codes(tiny, PROMPT, range(4), 20, GenerationSpec(), progress)
    assert progress.messages == []


def test_eight_bits_of_other_shapes_are_refused_where_the_library_is_not_exact(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch, by_library: None
) -> None:
    generation = GenerationSpec(quantization="int8", batch_size=2)
    monkeypatch.setattr(decoding, "has_exact_int8", lambda: True)
    assert Decoder(tiny, generation).method == "torch on cpu, blocks of 16 clips"
    monkeypatch.setattr(decoding, "has_exact_int8", lambda: False)
    with pytest.raises(
        ResourceError, match=r"quantization: int8 is compiled for other shapes .*leave it out"
    ):
        generate_codes(tiny, PROMPT, [0], 4, generation, SilentProgress())


@pytest.fixture
def halves(tiny: TransformersMusicGen) -> Iterator[TransformersMusicGen]:
    """Weights that are numbers of float16, as the published ones are."""
    before = {name: value.clone() for name, value in tiny.network.decoder.state_dict().items()}
    with torch.no_grad():
        for weight in tiny.network.decoder.parameters():
            weight.copy_(weight.half())
    yield tiny
    tiny.remove_adapter()
    tiny.network.decoder.load_state_dict(before)


@pytest.mark.parametrize(
    "lora", [None, LoraSpec(rank=4, targets="all"), LoraSpec(rank=4, targets="attention", use_dora=True)]
)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_small_batches_of_half_weights_give_the_tokens_of_transformers(
    halves: TransformersMusicGen,
    add_adapter: AddAdapter,
    monkeypatch: pytest.MonkeyPatch,
    lora: LoraSpec | None,
    guidance: float,
) -> None:
    if lora is not None:
        add_adapter(halves, lora)
    expected = transformers_codes(halves, monkeypatch, 20, guidance)
    for size in (1, 4):
        generation = greedy(guidance).model_copy(update={"batch_size": size})
        codes = generate_codes(halves, PROMPT, [0], 20, generation, SilentProgress())
        assert torch.equal(codes, expected)


def test_clips_of_a_prompt_differ_and_a_seed_repeats_them(tiny: TransformersMusicGen) -> None:
    first = generate_codes(tiny, PROMPT, range(4), 30, GenerationSpec(), SilentProgress())
    again = generate_codes(tiny, PROMPT, range(4), 30, GenerationSpec(), SilentProgress())
    other = generate_codes(tiny, PROMPT, range(4), 30, GenerationSpec(seed=1), SilentProgress())
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len({tuple(clip.flatten().tolist()) for clip in first}) == 4


def test_clips_come_in_the_order_asked_for(tiny: TransformersMusicGen) -> None:
    generation = GenerationSpec(batch_size=16)
    together = generate_codes(tiny, PROMPT, range(8), 20, generation, SilentProgress())
    some = generate_codes(tiny, PROMPT, [5, 2], 20, generation, SilentProgress())
    assert torch.equal(some, together[[5, 2]])


def test_decoding_leaves_the_model_as_it_was(tiny: TransformersMusicGen, add_adapter: AddAdapter) -> None:
    add_adapter(tiny, LoraSpec(rank=4, targets="all", use_dora=True))
    before = {name: value.clone() for name, value in tiny.network.state_dict().items()}
    state = torch.get_rng_state()
    generate_codes(tiny, PROMPT, [0], 10, GenerationSpec(), SilentProgress())
    assert torch.equal(torch.get_rng_state(), state)
    after = tiny.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_progress_counts_every_frame_once(tiny: TransformersMusicGen) -> None:
    progress = Recorder()
    generate_codes(tiny, PROMPT, range(5), 60, GenerationSpec(batch_size=2), progress)
    assert progress.frames == 5 * 60


def test_out_of_memory_halves_the_batch_and_goes_on(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generate_codes(tiny, PROMPT, range(10), 20, GenerationSpec(batch_size=2), SilentProgress())
    original = decoding.KeyValueCache.allocate

    def allocate(
        weights: DecoderWeights, n_rows: int, n_positions: int, dtype: torch.dtype
    ) -> decoding.KeyValueCache:
        if n_rows > 4:  # two halves of two clips
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return original(weights, n_rows, n_positions, dtype)

    monkeypatch.setattr(decoding.KeyValueCache, "allocate", allocate)
    progress = Recorder()
    batches = list(generate_batches(tiny, PROMPT, range(10), 20, GenerationSpec(batch_size=8), progress))
    assert [batch.clip_ids for batch in batches] == [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9)]
    assert torch.equal(torch.cat([batch.codes for batch in batches]), expected)
    assert progress.messages == [
        "out of memory while generating 8 clips at once; continuing with 4",
        "out of memory while generating 4 clips at once; continuing with 2",
    ]


def test_one_clip_that_does_not_fit_is_an_error_with_numbers(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*_: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(decoding.KeyValueCache, "allocate", allocate)
    with pytest.raises(
        OutOfMemoryError, match=r"generating one clip did not fit into the memory of cpu \(\d+\.\d GiB\)"
    ):
        generate_codes(tiny, PROMPT, range(4), 20, GenerationSpec(), SilentProgress())


def test_other_errors_are_not_taken_for_a_lack_of_memory(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def allocate(*_: object) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(decoding.KeyValueCache, "allocate", allocate)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        generate_codes(tiny, PROMPT, range(4), 20, GenerationSpec(), SilentProgress())


def test_batch_size_follows_the_free_memory(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    for free in (10**12, 2 * 10**6, 10**3):
        monkeypatch.setattr(decoding, "available_bytes", lambda _, free=free: free)
        batches = generate_batches(tiny, PROMPT, range(70), 10, GenerationSpec(), SilentProgress())
        sizes.append(len(next(iter(batches)).clip_ids))
        batches.close()
    assert sizes[0] == 14  # five equal batches rather than four of 16 and one of 6
    assert 1 < sizes[1] < 14
    assert sizes[2] == 1


def test_a_clip_longer_than_the_positions_is_an_error(tiny: TransformersMusicGen) -> None:
    with pytest.raises(ModelError, match=r"254 frames are more than .* has positions for \(253\)"):
        generate_codes(tiny, PROMPT, [0], 254, GenerationSpec(), SilentProgress())
    assert generate_codes(tiny, PROMPT, [0], 253, greedy(1.0), SilentProgress()).shape[-1] == 253


def test_damaged_weights_do_not_become_clips(tiny: TransformersMusicGen, add_adapter: AddAdapter) -> None:
    add_adapter(tiny, LoraSpec(rank=2, targets="ffn"))
    with torch.no_grad():
        next(iter(tiny.adapter_parameters().values())).fill_(float("nan"))
    with pytest.raises(ModelError, match="logits are not finite"):
        generate_codes(tiny, PROMPT, [0], 10, GenerationSpec(), SilentProgress())
