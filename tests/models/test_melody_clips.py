"""Clips of MusicGen Melody that follow melodies, against transformers' own model and audiocraft's windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.melodies import play_notes, save_melodies
from support.melody_model import CHROMA_LENGTH, save_random_melody
from transformers import MusicgenMelodyFeatureExtractor

from benchmarks.random_model import TINY, TINY_STEREO
from lora_bench.audio import load_audio, resample, to_channels
from lora_bench.errors import AudioFileError, DatasetError, ModelError
from lora_bench.models import load_model, melodies
from lora_bench.models.decoding import decoder as decoding
from lora_bench.models.decoding.decoder import Decoder, generate_batches, generate_codes
from lora_bench.models.melodies import Melodies, extract_chroma, find_sounding, repeat_sound
from lora_bench.models.transformers_melody import TransformersMelody
from lora_bench.progress import SilentProgress
from lora_bench.spec.clip_windows import cut_windows
from lora_bench.spec.schema import GenerationSpec, LoraSpec, ModelSpec

PROMPT = "a song with drums"
SHAPES = {"mono": TINY, "stereo": TINY_STEREO}
N_FRAMES = 20


@pytest.fixture(scope="module", params=SHAPES)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TransformersMelody:
    return load(save_random_melody(tmp_path_factory.mktemp(request.param), SHAPES[request.param]))


@pytest.fixture(scope="module")
def mono(tmp_path_factory: pytest.TempPathFactory) -> TransformersMelody:
    return load(save_random_melody(tmp_path_factory.mktemp("mono"), TINY))


@pytest.fixture(scope="module")
def tunes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three melodies: short, longer than the model reads, and stereo at another rate."""
    return save_melodies(tmp_path_factory.mktemp("tunes"))


def load(folder: Path) -> TransformersMelody:
    model = load_model(ModelSpec(id=str(folder)), device="cpu")
    assert isinstance(model, TransformersMelody)
    return model


def own_features(file: Path) -> torch.Tensor:
    """Transformers' features [1, T, 12] of a melody."""
    audio, rate_hz = load_audio(file)
    mono = resample(to_channels(audio, 1), rate_hz, 32_000)[0]
    return MusicgenMelodyFeatureExtractor()(mono, sampling_rate=32_000, return_tensors="pt")["input_features"]


def own_codes(
    model: TransformersMelody, features: torch.Tensor, guidance: float, prompt: str = PROMPT
) -> torch.Tensor:
    """Codes [N, K, F] that transformers' `generate` hands to the codec, left and right interleaved."""
    seen: list[torch.Tensor] = []
    codec, original = model.network.audio_encoder, model.network.audio_encoder.decode

    def record(codes: torch.Tensor, **options: Any) -> Any:
        seen.append(codes[0])
        return original(codes, **options)

    ids = model._tokenizer([prompt] * len(features), return_tensors="pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(codec, "decode", record)
        model.network.generate(
            **ids,
            input_features=features,
            do_sample=False,
            guidance_scale=guidance,
            max_new_tokens=N_FRAMES + max(model.info.delays),
        )
    return torch.stack(seen, dim=2).flatten(1, 2)


def our_codes(
    model: TransformersMelody,
    path: Path | None,
    clips: Sequence[int] = (0, 1, 2),
    *,
    guidance: float = 3.0,
    n_frames: int = N_FRAMES,
    top_k: int = 1,
    batch_size: int | None = None,
) -> torch.Tensor:
    generation = GenerationSpec(guidance=guidance, melodies=path, top_k=top_k, batch_size=batch_size)
    return generate_codes(model, PROMPT, clips, n_frames, generation, SilentProgress())


# what a model reads


def test_chroma_is_that_of_transformers(tunes: Path) -> None:
    read = Melodies(tunes)
    lengths = [len(read.read(index)) for index in range(3)]
    assert lengths == [1 + 32_000 // 4096, 1 + 31 * 32_000 // 4096 - 8, 1 + 2 * 32_000 // 4096]
    assert lengths[1] == 235  # of 30 s
    for index, file in enumerate(read.files):
        torch.testing.assert_close(read.read(index), own_features(file)[0], rtol=0, atol=0)


def test_notes_are_their_pitch_classes() -> None:
    audio = play_notes([0, 4, 7, 11], note_s=1.0)
    found = extract_chroma(audio).argmax(dim=1)
    for note, pitch_class in enumerate([0, 4, 7, 11]):
        middle = round((note + 0.5) * 32_000 / 4096)
        assert int(found[middle]) == pitch_class


def test_silent_frames_are_told() -> None:
    audio = np.concatenate([play_notes([0], note_s=2.0), np.zeros(64_000, np.float32)])
    found = find_sounding(audio)
    assert len(found) == len(extract_chroma(audio)) == 1 + len(audio) // 4096
    assert bool(found[:15].all())
    assert not bool(found[-13:].any())
    short = play_notes([0], note_s=0.1)
    assert len(find_sounding(short)) == len(extract_chroma(short))


def test_logits_equal_those_of_transformers(model: TransformersMelody, tunes: Path) -> None:
    codes = torch.randint(
        0,
        model.info.codebook_size,
        (model.info.n_codebooks, 12),
        generator=torch.Generator().manual_seed(0),
    )
    melody = model.encode_melody(Melodies(tunes).read(0))
    (text,) = model.encode_text([PROMPT])
    projected, mask = model._batch_text([text])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "null_melody", lambda: melody)
        hidden = model._run_decoder(codes[None], projected, mask)
    ours = torch.stack([head(hidden)[0] for head in model.network.decoder.lm_heads])
    ids = model._tokenizer([PROMPT], return_tensors="pt")
    features = own_features(Melodies(tunes).files[0])
    theirs = model.network(**ids, input_features=features, decoder_input_ids=codes).logits[:, -12:]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    null = model.network(**ids, decoder_input_ids=codes).logits[:, -12:]
    assert not torch.allclose(null, theirs, atol=1e-3)


# greedy tokens


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("is_compiled", [True, False], ids=["compiled", "library"])
def test_greedy_tokens_equal_those_of_transformers(
    model: TransformersMelody,
    tunes: Path,
    monkeypatch: pytest.MonkeyPatch,
    guidance: float,
    is_compiled: bool,
) -> None:
    if not is_compiled:
        monkeypatch.setattr("lora_bench.models.decoding.small_batch_step.can_stream", lambda _: False)
    found = our_codes(model, tunes, guidance=guidance)
    files = Melodies(tunes).files
    expected = torch.cat([own_codes(model, own_features(file), guidance) for file in files])
    assert torch.equal(found, expected)
    assert len(found.unique(dim=0)) > 1
    assert not torch.equal(found[:1], our_codes(model, None, [0], guidance=guidance))


def test_a_batch_of_clips_equals_a_batch_of_transformers(mono: TransformersMelody, tunes: Path) -> None:
    files = Melodies(tunes).files
    features = torch.cat([own_features(file)[:, :8] for file in files])  # of one length, as a batch has to be
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(melodies, "extract_chroma", lambda audio: extract_chroma(audio)[:8])
        found = our_codes(mono, tunes)
    assert torch.equal(found, own_codes(mono, features, 3.0))


def test_clips_take_turns_with_the_melodies_and_depend_on_no_batch(
    mono: TransformersMelody, tunes: Path
) -> None:
    greedy = our_codes(mono, tunes, range(7), batch_size=7)
    assert torch.equal(greedy[3:6], greedy[:3])
    assert torch.equal(greedy[6], greedy[0])
    drawn = our_codes(mono, tunes, range(7), batch_size=7, top_k=40)
    for size in (1, 3):
        assert torch.equal(our_codes(mono, tunes, range(7), batch_size=size, top_k=40), drawn)
    assert torch.equal(our_codes(mono, tunes, [5, 1], batch_size=2, top_k=40), drawn[[5, 1]])
    (first, *_) = Melodies(tunes).files
    assert torch.equal(our_codes(mono, first, [0], top_k=40), drawn[:1])


@pytest.mark.parametrize("is_compiled", [True, False], ids=["compiled", "library"])
def test_one_decoder_serves_prompts_of_any_length(
    mono: TransformersMelody, tunes: Path, monkeypatch: pytest.MonkeyPatch, is_compiled: bool
) -> None:
    if not is_compiled:
        monkeypatch.setattr("lora_bench.models.decoding.small_batch_step.can_stream", lambda _: False)
    generation = GenerationSpec(top_k=1, melodies=tunes)
    decoder = Decoder(mono, generation)
    features = [own_features(file) for file in Melodies(tunes).files]
    for prompt, clips in (("calm", [1, 2]), (PROMPT * 3, [0, 1]), ("b", [2, 0]), ("calm", [0, 1])):
        batches = generate_batches(mono, prompt, clips, N_FRAMES, generation, SilentProgress(), decoder)
        found = torch.cat([batch.codes for batch in batches])
        expected = torch.cat([own_codes(mono, features[clip], 3.0, prompt) for clip in clips])
        assert torch.equal(found, expected)


def test_an_adapter_follows_melodies_too(mono: TransformersMelody, tunes: Path) -> None:
    base = our_codes(mono, tunes, [0])
    mono.inject_lora(LoraSpec(rank=4, targets="all"), seed=0)
    try:
        for name, parameter in mono.adapter_parameters().items():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(1))
        found = our_codes(mono, tunes, [0])
        assert torch.equal(found, own_codes(mono, own_features(Melodies(tunes).files[0]), 3.0))
        assert not torch.equal(found, base)
    finally:
        mono.remove_adapter()


# windows


def test_every_window_follows_its_part_of_the_melody(
    mono: TransformersMelody, tunes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "plan_windows", lambda _, n_frames, __: cut_windows(n_frames, 24, 10))
    seen: list[torch.Tensor] = []
    encode = mono.encode_melody
    monkeypatch.setattr(mono, "encode_melody", lambda chroma: seen.append(chroma) or encode(chroma))
    found = our_codes(mono, tunes, [0], n_frames=50)
    assert found.shape[-1] == 50
    audio = Melodies(tunes).load(0)
    expected = [
        extract_chroma(repeat_sound(audio, 30 * 32_000, begin / mono.info.frame_rate_hz))
        for begin in (0, 14, 28)
    ]
    assert [len(one) for one in seen] == [1, 235, 235, 235]  # the null melody first
    assert all(torch.equal(one, other) for one, other in zip(seen[1:], expected, strict=True))


def test_a_repeated_sound_is_that_of_audiocraft() -> None:
    audio = np.arange(70_000, dtype=np.float32)
    begin_s = 1.3
    # `_generate_tokens` of audiocraft 1.3.0: positions of the window, modulo the melody's length
    positions = torch.arange(int(begin_s * 32_000), int(begin_s * 32_000) + 960_000)
    expected = torch.from_numpy(audio)[..., positions % len(audio)].numpy()
    np.testing.assert_array_equal(repeat_sound(audio, 960_000, begin_s), expected)


# faults


def test_a_model_without_melodies_says_so(tunes: Path) -> None:
    pocket = load_model(ModelSpec(), device="cpu")
    generation = GenerationSpec(melodies=tunes)
    with pytest.raises(
        ModelError, match=r"generation\.melodies: pocket follows no melodies; use a melody model"
    ):
        generate_codes(pocket, PROMPT, [0], 5, generation, SilentProgress())


def test_missing_and_damaged_melodies_are_named(mono: TransformersMelody, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"gone: does not exist; expected a folder of melodies or one"):
        our_codes(mono, tmp_path / "gone")
    (tmp_path / "notes.txt").write_text("c d e")
    with pytest.raises(DatasetError, match=r"holds no audio file; expected melodies \("):
        our_codes(mono, tmp_path)
    (tmp_path / "broken.wav").write_bytes(b"RIFF....WAVE")
    with pytest.raises(AudioFileError, match=r"broken\.wav"):
        our_codes(mono, tmp_path)


def test_only_melodies_that_are_needed_are_read(tunes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def load_and_note(path: Path) -> tuple[NDArray[np.float32], int]:
        read.append(path.name)
        return load_audio(path)

    monkeypatch.setattr(melodies, "load_audio", load_and_note)
    found = Melodies(tunes)
    assert torch.equal(found.read(found.place(4)), found.read(found.place(1)))
    assert read == ["b.flac"]
    assert len(found.read(1)) > CHROMA_LENGTH  # cut, where the short one is repeated
