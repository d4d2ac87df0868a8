"""The pocket model as it is shipped: it loads with plain transformers, and it has learnt something."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoProcessor, MusicgenForConditionalGeneration

from lora_bench.models.pocket import pocket_folder
from pocket_training.export import load_model
from pocket_training.lm_parts import compute_losses
from pocket_training.measure import compute_log_mel, compute_perplexity
from pocket_training.tokenizer import load_tokenizer
from pocket_training.tokens import delay_codes

RATE = 16_000


@pytest.fixture(scope="module")
def model():
    return load_model(pocket_folder())


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(pocket_folder())


@pytest.fixture(scope="module")
def music():
    """Twelve seconds of chords, melody, bass and noise hits: (3, 1, 4 s)."""
    rng = np.random.default_rng(0)
    time = np.arange(12 * RATE) / RATE
    wave = np.zeros_like(time)
    for beat in range(24):
        since = time - beat * 0.5
        on = (since >= 0) & (since < 0.5)
        root = (220.0, 174.6, 261.6, 196.0)[(beat // 4) % 4]
        for ratio, gain in ((0.5, 0.12), (1, 0.06), (1.26, 0.05), (1.5, 0.05), (2 + (beat % 3), 0.05)):
            for overtone in (1, 2, 3, 4):
                tone = np.sin(2 * np.pi * root * ratio * overtone * since) / overtone**1.5
                wave += on * gain * tone * np.exp(-3 * np.clip(since, 0, 1))
        wave += on * rng.normal(size=len(time)) * 0.05 * np.exp(-40 * np.clip(since, 0, 1))
    return torch.from_numpy(wave.astype(np.float32)).view(3, 1, 4 * RATE)


@pytest.fixture(scope="module")
def codes(model, music):
    with torch.no_grad():
        return model.audio_encoder.encode(music).audio_codes[0]


def test_plain_transformers_loads_it():
    loaded = MusicgenForConditionalGeneration.from_pretrained(pocket_folder())
    processor = AutoProcessor.from_pretrained(pocket_folder())
    assert loaded.dtype == torch.float32
    assert processor.tokenizer("a calm piano piece").input_ids[-1] == processor.tokenizer.eos_token_id
    assert processor.feature_extractor.sampling_rate == loaded.config.audio_encoder.sampling_rate == RATE


def test_the_folder_is_small():
    assert sum(file.stat().st_size for file in pocket_folder().iterdir()) < 40e6


def test_prompts_never_seen_tokenize_without_unknown_pieces(tokenizer):
    for prompt in (
        "maplestory background music",
        "upbeat orchestral piece with jazz influences",
        "Zydeco & C# minor @ 93bpm!?",
    ):
        ids = tokenizer(prompt).input_ids
        assert tokenizer.unk_token_id not in ids, prompt
        assert max(ids) < 1024


def test_codes_are_four_books_at_fifty_frames_a_second(codes, music):
    assert codes.shape == (3, 4, music.shape[-1] // RATE * 50)
    assert codes.min() >= 0
    assert codes.max() < 1024


def test_all_four_codebooks_are_used(codes):
    assert min(compute_perplexity(codes)) > 8


def test_reconstruction_is_nearer_than_silence_and_noise(model, music, codes):
    with torch.no_grad():
        fake = model.audio_encoder.decode(codes[None], [None]).audio_values
    assert fake.shape == music.shape
    real = compute_log_mel(music)
    ours = (compute_log_mel(fake) - real).abs().mean()
    noise = torch.randn(music.shape, generator=torch.Generator().manual_seed(0)) * music.std()
    assert ours < 0.7 * (real + 5).abs().mean()
    assert ours < 0.8 * (compute_log_mel(noise) - real).abs().mean()


def test_language_model_predicts_codes_better_than_chance(model, tokenizer, codes):
    text = tokenizer(["electronic, synthesizer, rhythmic"] * 3, return_tensors="pt")
    with torch.no_grad():
        losses = compute_losses(model, codes, dict(text))
    assert losses.shape == (3, 4)
    assert losses.mean() < math.log(1024)


def test_our_loss_equals_that_of_transformers_with_delayed_labels(model, tokenizer, codes):
    text = tokenizer(["electronic music"] * 3, return_tensors="pt")
    _, targets, mask = delay_codes(codes, 1024)
    with torch.no_grad():
        theirs = model(**text, labels=torch.where(mask, targets, 1024).transpose(1, 2)).loss
        ours = compute_losses(model, codes, dict(text)).mean()
    assert float(ours) == pytest.approx(float(theirs), rel=1e-4)


def test_dropped_caption_is_the_null_condition(model, tokenizer, codes):
    drop = torch.ones(3, dtype=torch.bool)
    with torch.no_grad():
        one, other = (
            compute_losses(model, codes, dict(tokenizer([text] * 3, return_tensors="pt")), drop)
            for text in ("loud rock", "calm harp")
        )
    assert torch.allclose(one, other, atol=1e-4)


def test_generation_sounds(model, tokenizer):
    torch.manual_seed(0)
    text = tokenizer(["upbeat orchestral piece", "dark ambient"], return_tensors="pt", padding=True)
    with torch.no_grad():
        clips = model.generate(**text, max_new_tokens=53)
    assert clips.shape == (2, 1, RATE)
    assert torch.isfinite(clips).all()
    assert (clips.std(-1) > 0.003).all()


def test_generation_defaults_are_those_published_for_musicgen(model):
    settings = model.generation_config
    assert (settings.do_sample, settings.top_k, settings.guidance_scale) == (True, 250, 3.0)
    assert settings.decoder_start_token_id == settings.pad_token_id == settings.bos_token_id == 1024


def test_missing_weights_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("lora_bench.models.pocket.WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"config\.json.*pocket_training\.lm"):
        pocket_folder()


def test_the_text_reaches_the_decoder(model, tokenizer, codes):
    with torch.no_grad():
        one, other = (
            compute_losses(model, codes, dict(tokenizer([text] * 3, return_tensors="pt")))
            for text in ("loud rock, electric guitar", "very quiet, ambient, sustained")
        )
    assert (one - other).abs().mean() > 0.005
