from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from lora_bench.errors import ModelError, ResourceError
from lora_bench.models import load_model
from lora_bench.models.device import choose_device, choose_dtype
from lora_bench.models.model_files import hash_weights
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import ModelSpec


def copy_model(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def test_info_is_read_from_the_configs(tiny: TransformersMusicGen, stereo: TransformersMusicGen) -> None:
    assert (tiny.info.n_codebooks, tiny.info.codebook_size, tiny.info.delays) == (4, 64, (0, 1, 2, 3))
    assert (tiny.info.audio_format.sample_rate_hz, tiny.info.audio_format.channels) == (1600, 1)
    assert (tiny.info.hop_samples, tiny.info.frame_rate_hz) == (32, 50.0)
    assert tiny.info.max_frames == 253
    assert not tiny.info.trained
    assert stereo.info.delays == (0, 0, 1, 1, 2, 2, 3, 3)
    assert (tiny.info.max_delay, stereo.info.max_delay) == (3, 3)
    assert stereo.info.audio_format.channels == 2


def test_pocket_loads_offline_and_is_no_musicgen_small() -> None:
    model = load_model(ModelSpec(), device="cpu")
    assert model.info.name == "pocket"
    assert (model.info.audio_format.sample_rate_hz, model.info.frame_rate_hz) == (16_000, 50.0)
    assert (model.info.n_codebooks, model.info.codebook_size) == (4, 1024)
    codes = model.encode_audio(np.zeros((1, 1, 16_000), dtype=np.float32))
    assert codes.shape == (1, 4, 50)


def test_loading_prints_nothing(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(ModelSpec(id=str(tiny_folder)), device="cpu")
    assert capfd.readouterr() == ("", "")


def test_token_ids_that_transformers_loses_are_set_after_every_load(tiny: TransformersMusicGen) -> None:
    assert tiny.network.config.decoder.decoder_start_token_id == 64
    generation = tiny.network.generation_config
    assert (generation.decoder_start_token_id, generation.pad_token_id, generation.bos_token_id) == (
        64,
        64,
        64,
    )


def test_weights_hash_follows_the_weights(tiny_folder: Path, tmp_path: Path) -> None:
    copy = copy_model(tiny_folder, tmp_path / "copy")
    assert hash_weights(copy) == hash_weights(tiny_folder)
    data = bytearray((copy / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (copy / "model.safetensors").write_bytes(data)
    assert hash_weights(copy) != hash_weights(tiny_folder)


def test_hub_cache_names_are_taken_as_hashes(tiny_folder: Path, tmp_path: Path) -> None:
    copy = copy_model(tiny_folder, tmp_path / "copy")
    import hashlib

    weights = copy / "model.safetensors"
    blob = copy / hashlib.sha256(weights.read_bytes()).hexdigest()
    weights.rename(blob)
    weights.symlink_to(blob)
    assert hash_weights(copy) == hash_weights(tiny_folder)


def test_hub_model_that_is_not_cached_says_what_and_how(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError) as caught:
        load_model(ModelSpec(id="facebook/musicgen-nowhere", revision="v1"), device="cpu")
    message = str(caught.value)
    assert "model.id: facebook/musicgen-nowhere (revision v1): not in the cache" in message
    assert "HF_HUB_OFFLINE is set" in message
    assert "hf download facebook/musicgen-nowhere --revision v1" in message


@pytest.mark.parametrize("name", ["pocked", "./missing/folder", "a/b/c", "/nowhere"])
def test_name_that_is_neither_folder_nor_hub_id_is_explained(name: str) -> None:
    with pytest.raises(ModelError, match="neither `pocket`, nor a folder that exists, nor a hub id"):
        load_model(ModelSpec(id=name), device="cpu")


def test_folder_without_config_is_named(tmp_path: Path) -> None:
    (tmp_path / "state_dict.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"there is no config\.json"):
        load_model(ModelSpec(id=str(tmp_path)), device="cpu")


def test_model_of_another_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(ModelError, match="a model of type 't5', expected 'musicgen'"):
        load_model(ModelSpec(id=str(tmp_path)), device="cpu")


def test_damaged_weights_are_named(tiny_folder: Path, tmp_path: Path) -> None:
    copy = copy_model(tiny_folder, tmp_path / "copy")
    (copy / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(ModelSpec(id=str(copy)), device="cpu")


def test_missing_tensors_are_not_filled_with_random_numbers(tiny_folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    copy = copy_model(tiny_folder, tmp_path / "copy")
    tensors = load_file(copy / "model.safetensors")
    del tensors["decoder.lm_heads.3.weight"]
    save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 tensors, first decoder\.lm_heads\.3\.weight"):
        load_model(ModelSpec(id=str(copy)), device="cpu")


def test_codec_that_normalises_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    copy = copy_model(tiny_folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["audio_encoder"]["normalize"] = True
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"normalize True.*expected MusicGen's"):
        load_model(ModelSpec(id=str(copy)), device="cpu")


def test_another_pad_token_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    copy = copy_model(tiny_folder, tmp_path / "copy")
    config = json.loads((copy / "config.json").read_text())
    config["decoder"]["pad_token_id"] = 3
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="padding token is 3, expected the number of codes, 64"):
        load_model(ModelSpec(id=str(copy)), device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_device_that_is_not_there_is_named() -> None:
    with pytest.raises(ResourceError, match="device 'cuda:3': this machine has 0 usable GPUs"):
        choose_device("cuda:3")
    with pytest.raises(ResourceError, match="device 'gpu' is unknown"):
        choose_device("gpu")


def test_automatic_arithmetic_on_a_cpu_is_float32() -> None:
    assert choose_dtype("auto", torch.device("cpu")) == torch.float32
    assert choose_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
