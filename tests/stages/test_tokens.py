from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_data import HOP, RATE_HZ, Recorder, load_tiny, make_manifest

from lora_bench.artifacts import Slice
from lora_bench.errors import DatasetError, OutOfMemoryError, StoreError
from lora_bench.models.token_set import load_tokens
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.progress import SilentProgress
from lora_bench.stages.tokens import count_valid_frames, encode_dataset, token_key
from lora_bench.store import Store


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TransformersMusicGen:
    return load_tiny(tmp_path_factory.mktemp("model"))


def piece(n_samples: int, n_valid: int) -> Slice:
    return Slice("t", "train", 0, n_samples, n_valid, "a")


def test_valid_frames_count_only_frames_wholly_inside_the_audio(model: TransformersMusicGen) -> None:
    assert count_valid_frames(piece(10 * HOP, 10 * HOP), model.info) == 10
    assert count_valid_frames(piece(10 * HOP, 7 * HOP + 5), model.info) == 7
    assert count_valid_frames(piece(10 * HOP, HOP - 1), model.info) == 0


def test_a_full_slice_of_an_odd_length_keeps_its_last_frame(model: TransformersMusicGen) -> None:
    assert count_valid_frames(piece(10 * HOP + 1, 10 * HOP + 1), model.info) == 11


def test_codes_equal_those_of_each_slice_alone(model: TransformersMusicGen, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "data")
    tokens = encode_dataset(manifest, model, Store(tmp_path / "cache"), SilentProgress())
    assert tokens.codes.shape == (len(manifest.slices), 4, 50)
    assert tokens.splits == tuple(piece.split for piece in manifest.slices)
    assert tokens.valid_frames.tolist() == [50, 50, 25, 50, 50, 50, 50, 25]
    for row, cut in enumerate(manifest.slices):
        track = next(track for track in manifest.tracks if track.id == cut.track_id)
        audio = np.load(track.audio)[:, cut.offset : cut.offset + cut.n_valid]
        padded = np.pad(audio, ((0, 0), (0, cut.n_samples - cut.n_valid)))[None]
        agree = tokens.codes[row] == model.encode_audio(padded)[0].numpy()
        assert agree.mean() > 0.99  # a batch may turn a code that is at a tie


def test_slices_of_different_lengths_are_never_encoded_together(
    model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(tmp_path / "data")
    short = replace(manifest.slices[1], n_samples=RATE_HZ // 2, n_valid=RATE_HZ // 2)
    manifest = replace(manifest, slices=(manifest.slices[0], short, *manifest.slices[2:]))
    seen: list[tuple[int, ...]] = []
    original = model.encode_audio

    def record(audio: np.ndarray) -> torch.Tensor:
        seen.append(audio.shape)
        return original(audio)

    monkeypatch.setattr(model, "encode_audio", record)
    tokens = encode_dataset(manifest, model, Store(tmp_path / "cache"), SilentProgress())
    assert sorted(seen) == [(1, 1, 800), (7, 1, 1600)]
    assert tokens.valid_frames.tolist() == [50, 25, 25, 50, 50, 50, 50, 25]


def test_text_states_are_computed_once_per_caption(model: TransformersMusicGen, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "data")
    tokens = encode_dataset(manifest, model, Store(tmp_path / "cache"), SilentProgress())
    assert tokens.captions == ("a song", "another longer song")
    for caption, state in zip(tokens.captions, tokens.text_states, strict=True):
        np.testing.assert_array_equal(state, model.encode_text([caption])[0].numpy())
    codes, valid, states = tokens.take([0, 3])
    assert (codes.dtype, valid.tolist()) == (torch.int64, [50, 50])
    assert [len(state) for state in states] == [len(state) for state in tokens.text_states]


def test_a_second_call_reads_the_cache(
    model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, store = make_manifest(tmp_path / "data"), Store(tmp_path / "cache")
    first = encode_dataset(manifest, model, store, SilentProgress())

    def fail(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(model, "encode_audio", fail)
    monkeypatch.setattr(model, "encode_text", fail)
    again = encode_dataset(manifest, model, store, SilentProgress())
    np.testing.assert_array_equal(first.codes, again.codes)
    assert (first.key, first.captions, first.track_ids) == (again.key, again.captions, again.track_ids)


def test_the_key_follows_audio_crop_captions_and_weights(model: TransformersMusicGen, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "data")
    keys = {
        token_key(manifest, model.info),
        token_key(replace(manifest, key="other audio"), model.info),
        token_key(make_manifest(tmp_path / "b", clip_s=0.5), model.info),
        token_key(replace(manifest, slices=manifest.slices[1:]), model.info),
        token_key(manifest, replace(model.info, weights_hash="0" * 64)),
    }
    assert len(keys) == 5
    # where the prepared audio lies does not matter
    assert token_key(replace(manifest, folder=tmp_path), model.info) in keys


def test_slices_without_a_frame_of_audio_are_left_out_and_logged(
    model: TransformersMusicGen, tmp_path: Path
) -> None:
    manifest = make_manifest(tmp_path / "data", tracks=[("train", 1.01), ("eval", 1.0)])
    progress = Recorder()
    tokens = encode_dataset(manifest, model, Store(tmp_path / "cache"), progress)
    assert len(manifest.slices) == 3
    assert len(tokens) == 2
    assert progress.messages == ["1 slices shorter than one codec frame were left out"]
    assert progress.stages == [("tokens", 2)]
    assert progress.done == 2


def test_nothing_to_encode_is_an_error(model: TransformersMusicGen, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "data", tracks=[("train", 0.01)])
    with pytest.raises(DatasetError, match="no slice holds a codec frame of audio"):
        encode_dataset(manifest, model, Store(tmp_path / "cache"), SilentProgress())


def test_a_prepared_file_that_is_too_short_is_named(model: TransformersMusicGen, tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path / "data")
    np.save(manifest.tracks[0].audio, np.zeros((1, 100), dtype=np.float32))
    with pytest.raises(DatasetError, match=r"0\.npy: 100 samples, expected at least 1600"):
        encode_dataset(manifest, model, Store(tmp_path / "cache"), SilentProgress())
    assert not list((tmp_path / "cache" / "tokens").glob("*/tokens.json"))


def test_out_of_memory_halves_the_batch(
    model: TransformersMusicGen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make_manifest(tmp_path / "data")
    expected = encode_dataset(manifest, model, Store(tmp_path / "a"), SilentProgress())
    original, limit = model.encode_audio, 2

    def small(audio: np.ndarray) -> torch.Tensor:
        if len(audio) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(audio)

    monkeypatch.setattr(model, "encode_audio", small)
    progress = Recorder()
    tokens = encode_dataset(manifest, model, Store(tmp_path / "b"), progress)
    assert (tokens.codes == expected.codes).mean() > 0.99
    assert progress.messages[-1] == "out of memory while encoding 4 slices at once; going on with 2"
    limit = 0
    with pytest.raises(OutOfMemoryError, match="encoding one slice did not fit into the memory of cpu"):
        encode_dataset(manifest, model, Store(tmp_path / "c"), SilentProgress())


def test_damaged_tokens_are_named(model: TransformersMusicGen, tmp_path: Path) -> None:
    manifest, store = make_manifest(tmp_path / "data"), Store(tmp_path / "cache")
    tokens = encode_dataset(manifest, model, store, SilentProgress())
    folder = store.folder("tokens", tokens.key)
    (folder / "tokens.safetensors").write_bytes(b"no")
    with pytest.raises(StoreError, match="damaged tokens"):
        load_tokens(folder)
