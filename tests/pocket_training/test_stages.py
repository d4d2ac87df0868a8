"""The parts that trained the pocket model: scores, delay pattern, captions, codec conversion."""

import argparse
import json
import pickle
import random
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import EncodecModel

from pocket_training import shapes
from pocket_training.batches import Batches
from pocket_training.captions import Captioner, Heard, analyse_track
from pocket_training.codec import CodecTraining, get_phase, train_codec
from pocket_training.codec import get_rate_frac as get_codec_rate_frac
from pocket_training.codec_eval import measure_spread
from pocket_training.codec_losses import GradientNorms
from pocket_training.codec_parts import (
    PocketCodec,
    check_conversion,
    load_codec,
    restart_codes,
    save_codec,
    start_weights,
)
from pocket_training.data import Track
from pocket_training.export import load_model
from pocket_training.lm import LmTraining, get_rate_frac, train_lm
from pocket_training.lm_parts import MUON_PEAK_RATE, Muon
from pocket_training.measure import compute_si_sdr
from pocket_training.patches import PatchSampler
from pocket_training.scores import write_scores
from pocket_training.shapes import build_codec_config
from pocket_training.sources import SOURCES
from pocket_training.tokens import delay_codes, encode_segments, load_segments


def make_track(**changes):
    known = {
        "name": "x",
        "source": "scores",
        "words": ["jazz"],
        "instruments": ["piano"],
        "tempo_bpm": 93.0,
        "key": "a minor",
    }
    return Track(**{**known, "start": 0, "length": 160_000, "split": "train", **changes})


def test_scores_are_the_same_bytes_for_the_same_seed(tmp_path):
    first, again = write_scores(tmp_path / "a", 12, 3), write_scores(tmp_path / "b", 12, 3)
    assert [s.path.read_bytes() for s in first] == [s.path.read_bytes() for s in again]
    assert len({s.path.read_bytes() for s in first}) == 12
    assert all(s.path.read_bytes().startswith(b"MThd") for s in first)


def test_delay_pattern_keeps_every_code():
    codes = torch.randint(0, 1024, (2, 4, 7))
    inputs, targets, mask = delay_codes(codes, 1024)
    assert inputs.shape == targets.shape == (2, 4, 10)
    assert (inputs[..., 0] == 1024).all()
    assert torch.equal(inputs[..., 1:], targets[..., :-1])
    assert torch.equal(targets[:, mask].view(2, 4, 7), codes)


def test_captions_of_a_crop_know_tempo_key_and_level():
    windows = np.array([[-40.0, 8.0, 0.1]] * 10 + [[-10.0, 11.0, 3.0]] * 10)
    captioner = Captioner([make_track()], [Heard(120.0, "c major", windows)])
    quiet = captioner.write(0, 0.0, 10.0, random.Random(0), full=True)
    loud = captioner.write(0, 70.0, 10.0, random.Random(0), full=True)
    assert quiet.startswith("jazz, piano")
    assert quiet.endswith("medium tempo, 90 bpm, in a minor")
    assert quiet != loud
    assert len({captioner.write(0, 0.0, 10.0, random.Random(i)) for i in range(50)}) > 20


def test_analysis_hears_a_click_track_and_a_major_chord():
    time = np.arange(20 * 16_000) / 16_000
    wave = (
        sum(np.sin(2 * np.pi * f * time) for f in (261.63, 329.63, 392.0, 523.25))
        * 0.1
        * np.exp(-6 * (time % 0.5))
    )
    heard = analyse_track((wave * 32767).astype(np.int16))
    assert heard.tempo_bpm in (
        pytest.approx(120, rel=0.05),
        pytest.approx(60, rel=0.05),
        pytest.approx(240, rel=0.05),
    )
    assert heard.key == "c major"
    assert heard.windows.shape == (4, 3)


def test_si_sdr_ignores_scale_and_falls_with_noise():
    signal, noise = torch.randn(2, 1, 8000), torch.randn(2, 1, 8000)
    assert (compute_si_sdr(0.3 * signal, signal) > 60).all()
    assert compute_si_sdr(signal + 0.1 * noise, signal).mean() == pytest.approx(20, abs=1)


def test_held_out_music_is_not_among_the_sources():
    packages = [source.package for source in SOURCES]
    assert not any(
        word in package
        for package in packages
        for word in ("wesnoth", "drascula", "asc", "planetblupi", "fillets")
    )


def test_learning_rate_ends_at_zero():
    assert get_rate_frac(0.0) > 0
    assert get_rate_frac(0.2) == 1.0
    assert get_rate_frac(1.0) == 0.0


def test_patches_repeat_with_their_seed_and_hold_silence_between_notes():
    crops = PatchSampler(16_000, np.random.default_rng(5)).draw(24)
    assert torch.equal(crops, PatchSampler(16_000, np.random.default_rng(5)).draw(24))
    assert crops.shape == (24, 1, 16_000)
    assert torch.isfinite(crops).all()
    assert crops.abs().max() < 1
    assert 0.05 < (crops.abs() < 1e-4).float().mean() < 0.7


def test_patches_have_no_partials_beyond_the_band():
    sampler = PatchSampler(16_000, np.random.default_rng(0))
    time = np.arange(16_000) / 16_000
    for kind in ("pulse", "saw", "triangle", "additive"):
        tone = sampler._make_tone(kind, 1234.0, time, np.array([0.4, 0.5, 0.5, 0.0]))
        power = np.abs(np.fft.rfft(tone * np.hanning(16_000))) ** 2
        at_partials = sum(power[1234 * k - 3 : 1234 * k + 4].sum() for k in range(1, 7))
        assert at_partials > 0.999 * power.sum(), kind


def test_phases_follow_the_audio_seen():
    args = argparse.Namespace(warm_up_s=10, adversarial_from_s=20, frozen_from_s=30)
    assert [get_phase(s, "warm_up", args) for s in (0, 10, 20, 30)] == [
        "warm_up",
        "joint",
        "adversarial",
        "frozen",
    ]
    assert get_phase(0, "joint", args) == "joint"  # a codec to start from needs no warm-up


def test_the_codec_s_learning_rate_rises_holds_and_falls():
    rates = [get_codec_rate_frac(s, 1e6) for s in (0, 1e4, 7e5, 9e5, 1e6)]
    assert rates == [pytest.approx(value) for value in (0.01, 1, 1, 0.5, 0.03)]


def test_average_gradient_norms_continue_from_their_state():
    one, other = GradientNorms(0.5), GradientNorms(0.5)
    one({"mel": 2.0})
    other.total, other.weight = dict(one.total), dict(one.weight)
    assert one({"mel": 4.0}) == other({"mel": 4.0}) == {"mel": pytest.approx(5 / 1.5)}


@pytest.fixture
def codec_args(tmp_path):
    """A working folder with two training tracks and one held out, and small settings of the codec's stage."""
    pytest.importorskip("audiocraft")
    rng, length = np.random.default_rng(0), 6 * 16_000
    (rng.standard_normal(3 * length) * 3000).astype(np.int16).tofile(tmp_path / "audio.i16")
    tracks = [
        make_track(source="x", start=i * length, length=length, split="heldout" if i == 2 else "train")
        for i in range(3)
    ]
    (tmp_path / "tracks.json").write_text(json.dumps([asdict(track) for track in tracks]))
    return argparse.Namespace(
        work=tmp_path, run="codec", start=None, codebook_size=32, filters=4, lstm_layers=1, audio_s=8, warm_up_s=2,
        adversarial_from_s=4, frozen_from_s=6, patches_frac=0.5, rate=1e-3, batch=2, device="cpu", workers=0,
        save_minutes=60.0, check_every_s=4, seed=0,
    )  # fmt: skip


def take_all_steps(args):
    training = CodecTraining(args)
    losses = []
    while training.seen_s < args.audio_s:
        losses.append(training.take_step())
    training.save()
    return training, losses


def test_a_codec_training_that_was_resumed_in_every_phase_equals_one_that_was_not(codec_args):
    whole, losses = take_all_steps(argparse.Namespace(**{**vars(codec_args), "run": "whole"}))
    assert [set(step) - {"l1", "mel", "commit"} for step in losses] == [set()] * 2 + [{"adv", "feat"}] * 2
    for audio_s in (2, 4, 6, 8):
        training = CodecTraining(codec_args)
        assert training.seen_s == audio_s - 2
        step = training.take_step()
        assert step == pytest.approx(losses[training.step - 1], rel=1e-4)
        training.save()
    ours, theirs = training.average.model.state_dict(), whole.average.model.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)


@pytest.mark.gpu
def test_both_trainings_run_on_a_gpu_and_resume_there(codec_args, lm_args):
    codec_args.device = lm_args.device = "cuda"
    lm_args.bf16 = True
    for kind, args in ((CodecTraining, codec_args), (LmTraining, lm_args)):
        for _ in range(3):
            training = kind(args)
            training.take_step()
            training.save()
        assert training.step == 3


@pytest.mark.slow
def test_two_processes_train_one_codec(codec_args, tmp_path):
    options = {
        "work": tmp_path, "codebook-size": 32, "filters": 4, "audio-s": 24, "warm-up-s": 8, "adversarial-from-s": 16,
        "frozen-from-s": 100, "batch": 2, "check-every-s": 12, "threads": 1,
    }  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    command += ["-m", "pocket_training.codec"]
    for name, value in options.items():
        command += [f"--{name}", str(value)]
    subprocess.run(command, check=True, timeout=300)
    lines = [json.loads(line) for line in (tmp_path / "codec" / "checks.jsonl").read_text().splitlines()]
    assert [(line["audio_s"], line["step"]) for line in lines] == [(12, 3), (24, 6)]
    assert lines[-1]["phase"] == "adversarial"
    assert EncodecModel.from_pretrained(tmp_path / "codec").config.codebook_size == 32


def test_a_batch_follows_from_its_step_whoever_makes_it(codec_args):
    batches = Batches(codec_args.work, 16_000, 4, 0.5, (0, 0))
    here, elsewhere = batches.iterate(3, 0), batches.iterate(2, 2)
    next(elsewhere)
    assert torch.equal(next(here), next(elsewhere))
    other = Batches(codec_args.work, 16_000, 4, 0.5, (0, 1))
    assert not torch.equal(batches[3], other[3])
    assert batches[3].shape == (4, 1, 16_000)


def test_a_frozen_codec_keeps_its_codes(codec_args):
    codec_args.frozen_from_s = codec_args.audio_s = 4
    training, _ = take_all_steps(codec_args)
    training.take_step()
    before = {name: tensor.clone() for name, tensor in training.codec.state_dict().items()}
    training.take_step()
    after = training.codec.state_dict()
    changed = {name.split(".")[0] for name in after if not torch.equal(after[name], before[name])}
    assert changed == {"decoder"}


def test_codes_that_nothing_uses_are_moved_to_where_the_vectors_are(codec_args):
    codec = PocketCodec(build_codec_config(32))
    hidden = torch.randn(4, 64, 50) + 5
    for layer in codec.quantizer.vq.layers:
        layer._codebook.cluster_size.fill_(1.0)
        layer._codebook.cluster_size[:8] = 0.01
    books = [layer._codebook.embed.clone() for layer in codec.quantizer.vq.layers]
    assert restart_codes(codec.quantizer, hidden, torch.Generator()) == 32
    vectors = hidden.transpose(1, 2).flatten(0, 1)
    first = codec.quantizer.vq.layers[0]._codebook
    assert all((vectors == code).all(1).any() for code in first.embed[:8])
    assert torch.equal(first.embed[8:], books[0][8:])
    codec.train()
    codec.quantizer(hidden, 50)  # audiocraft computes `embed` from its averages: the move must survive it
    assert (
        (first.embed[:8] - books[0][:8]).norm(dim=1) > 20
    ).all()  # they were near 0, the vectors are near 5
    assert torch.equal(
        first.cluster_size < 0.1 * first.cluster_size.mean(), torch.zeros(32, dtype=torch.bool)
    )


def test_the_codec_stage_writes_a_folder_for_transformers_and_a_line_of_figures(codec_args, monkeypatch):
    monkeypatch.setattr("pocket_training.codec_eval.N_MUSIC", 2)
    monkeypatch.setattr("pocket_training.codec_eval.N_GENRE", 1)
    codec_args.audio_s, codec_args.adversarial_from_s = 6, 100
    training = train_codec(codec_args)
    model = EncodecModel.from_pretrained(codec_args.work / "codec")
    audio = training.batches.draw(2)
    assert model.encode(audio).audio_codes[0].shape == (2, 4, 50)
    assert check_conversion(training.average.model, model, audio) < 1e-4
    lines = (codec_args.work / "codec" / "checks.jsonl").read_text().splitlines()
    assert [json.loads(line)["audio_s"] for line in lines] == [4, 6]
    facts = json.loads(lines[-1])
    assert facts["audio_s"] == 6
    assert facts["phase"] == "joint"
    assert {"music_mel", "genre_mel", "music_si_sdr_db", "genre_level_db"} <= facts.keys()
    assert train_codec(codec_args).step == training.step  # nothing is left to do: it was resumed at its end


def test_codebooks_of_2048_are_four_books_at_transformers_too(codec_args, tmp_path):
    codec = PocketCodec(build_codec_config(2048)).eval()
    model = save_codec(codec, tmp_path / "large")
    assert EncodecModel.from_pretrained(tmp_path / "large").config.codebook_size == 2048
    assert check_conversion(codec, model, torch.randn(1, 1, 3200)) < 1e-4
    assert model.encode(torch.randn(1, 1, 3200)).audio_codes.shape == (1, 1, 4, 10)


def test_a_wider_codec_with_larger_codebooks_starts_as_the_narrow_one_it_takes_over(tmp_path):
    pytest.importorskip("audiocraft")
    narrow, wide = (
        PocketCodec(build_codec_config(32, 4)).eval(),
        PocketCodec(build_codec_config(64, 6)).eval(),
    )
    save_codec(narrow, tmp_path)
    start_weights(wide)
    assert not load_codec(wide, tmp_path)
    audio = torch.randn(2, 1, 3200)
    with torch.no_grad():
        hidden = narrow.encoder(audio)
        assert torch.allclose(wide.encoder(audio), hidden, atol=1e-4)
        assert torch.allclose(wide.decoder(hidden), narrow.decoder(hidden), atol=1e-4)
    wide.decoder(wide.encoder(audio)).square().mean().backward()
    grads = {name: p.grad for name, p in wide.named_parameters() if p.grad is not None}
    assert all(torch.isfinite(grad).all() for grad in grads.values())
    same = PocketCodec(build_codec_config(32, 4)).eval()
    assert load_codec(same, tmp_path)
    with torch.no_grad():
        assert torch.allclose(same(audio)[0], narrow(audio)[0], atol=1e-4)


@pytest.fixture
def small_model(monkeypatch):
    """Models that `shapes.build_model` builds have two layers, and the text encoder two of 32."""
    text, decoder = shapes.build_text_config(), shapes.build_decoder_config
    text.d_model, text.d_kv, text.d_ff, text.num_layers = 32, 8, 64, 2

    def build_small_decoder(codebook_size):
        config = decoder(codebook_size)
        config.ffn_dim, config.num_hidden_layers = 256, 2
        return config

    monkeypatch.setattr(shapes, "build_text_config", lambda: text)
    monkeypatch.setattr(shapes, "build_decoder_config", build_small_decoder)


@pytest.fixture
def lm_args(tmp_path, small_model):
    """A working folder with an untrained codec and codes of two training tracks and one held out."""
    pytest.importorskip("audiocraft")
    save_codec(PocketCodec(build_codec_config(32, 4)), tmp_path / "codec")
    tracks = [
        make_track(words=[word], split=split)
        for word, split in (("jazz", "train"), ("rock", "train"), ("folk", "heldout"))
    ]
    (tmp_path / "tracks.json").write_text(json.dumps([asdict(track) for track in tracks]))
    windows = np.random.default_rng(0).normal(size=(4, 3))
    (tmp_path / "heard.pkl").write_bytes(pickle.dumps([Heard(120.0, "c major", windows)] * 3))
    codes = np.random.default_rng(0).integers(0, 32, (6, 4, 1200)).astype(np.uint16)
    np.savez(tmp_path / "segments.npz", track=np.arange(6) % 3, start_s=np.zeros(6), codes=codes)
    return argparse.Namespace(
        work=tmp_path, run="lm", start=None, audio_s=2.0, save_minutes=60.0, check_every_s=1, batch=1, seed=0,
        restart_text=False, text_only=False, crop_s=0.5, rate_factor=1.0, opening_every=2, bf16=False, device="cpu",
    )  # fmt: skip


def test_a_language_model_training_that_was_resumed_equals_one_that_was_not(lm_args):
    whole = LmTraining(argparse.Namespace(**{**vars(lm_args), "run": "whole"}))
    losses = [whole.take_step() for _ in range(2)]  # a crop, an opening
    for expected in losses:
        training = LmTraining(lm_args)
        assert training.take_step() == pytest.approx(expected, rel=1e-4)
        training.save()
    ours, theirs = training.average.model.state_dict(), whole.average.model.state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-5) for name in theirs)


def test_the_language_model_s_stage_writes_a_whole_model_with_the_codec_s_own_codebooks(lm_args):
    training = train_lm(lm_args)
    lines = (lm_args.work / "lm" / "checks.jsonl").read_text().splitlines()
    assert [json.loads(line)["audio_s"] for line in lines] == [1, 2]
    model = load_model(lm_args.work / "lm" / "weights")
    assert model.config.decoder.vocab_size == model.config.audio_encoder.codebook_size == 32
    assert model.generation_config.decoder_start_token_id == 32
    assert training.step == 4
    with torch.no_grad():
        text = training.tokenizer(["jazz"], return_tensors="pt")
        assert model.generate(**text, max_new_tokens=13).shape == (1, 1, 3200)


def test_all_of_a_track_is_encoded_to_its_end(tmp_path):
    class Codec:
        device = torch.device("cpu")

        def encode(self, audio):
            codes = (audio[:, 0, ::320] * 32768).round()  # the audio counts frames
            return SimpleNamespace(audio_codes=codes[None, :, None].expand(1, -1, 4, -1))

    length = 60 * 16_000
    (np.arange(2 * length) // 320 % 30_000).astype(np.int16).tofile(tmp_path / "audio.i16")
    encode_segments(
        tmp_path, [make_track(length=length), make_track(start=length, length=20 * 16_000)], Codec()
    )
    segments = load_segments(tmp_path)
    assert segments.start_s.tolist() == [0, 24, 36]
    assert segments.codes[2, 3, [0, -1]].tolist() == [1800, 2999]


def test_muon_takes_the_steps_of_torch_s_own_in_higher_precision():
    generator = torch.Generator().manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((8, 24), (24, 8))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    optimizers = (
        Muon(ours),
        torch.optim.Muon(
            theirs, lr=MUON_PEAK_RATE, weight_decay=0.05, ns_steps=4, adjust_lr_fn="match_rms_adamw"
        ),
    )
    starts = [p.detach().clone() for p in ours]
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    for one, other, start in zip(ours, theirs, starts, strict=True):
        assert (one - other).norm() < 0.03 * (other - start).norm()


def test_notes_have_more_spread_than_noise():
    """Noise of one colour sounds alike in all frames, notes of different pitch do not."""
    generator = torch.Generator().manual_seed(0)
    pitches_hz = 100 * 2 ** (6 * torch.rand(3, 1, 16, generator=generator))
    notes = torch.sin(2 * torch.pi * pitches_hz[..., None] * torch.arange(4000) / 16_000).flatten(2)
    noise = torch.randn(3, 1, 64_000, generator=generator)
    assert (measure_spread(noise) < 0.3 * measure_spread(notes)).all()
    assert measure_spread(0.1 * noise) == pytest.approx(measure_spread(noise), rel=1e-3)
