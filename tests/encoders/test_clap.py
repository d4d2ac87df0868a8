"""CLAP: what is said when a part is missing, and agreement with laion_clap on random weights."""

from __future__ import annotations

import sys
import zlib

import numpy as np
import pytest
import torch
from support.sounds import make_tone

from lora_bench.encoders import clap, get_encoder
from lora_bench.errors import UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.stages.score import score_embeddings

pytest.importorskip("torchvision")


class FixedTokenizer:
    """Stands in for the hub's tokenizers: one token per word, by its hash."""

    def __call__(self, text, *, padding, truncation, max_length, return_tensors):
        texts = [text] if isinstance(text, str) else text
        rows = [[0, *(3 + zlib.crc32(word.encode()) % 90 for word in line.split()), 2] for line in texts]
        ids = torch.tensor([row + [1] * (max_length - len(row)) for row in rows])
        return {"input_ids": ids, "attention_mask": (ids != 1).long()}


@pytest.fixture
def checkpoint_file(tmp_path, monkeypatch):
    monkeypatch.setenv("LORA_BENCH_CHECKPOINTS", str(tmp_path))
    return tmp_path / clap.FILE


def test_what_the_hub_cache_lacks_is_named_with_the_commands(checkpoint_file, tmp_path, monkeypatch):
    import huggingface_hub

    checkpoint_file.write_bytes(b"")
    known = {"bert-base-uncased": "x"}
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda repository, file: known.get(repository)
    )
    with pytest.raises(UnscoredError, match=r"hf download facebook/bart-base; hf download roberta-base$"):
        get_encoder("clap")
    assert "laion_clap" not in sys.modules or sys.modules["laion_clap"].__name__ == "laion_clap"


def test_the_hub_is_off_while_laion_clap_is_loaded():
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    with clap.hub_offline():
        assert constants.is_offline_mode()
    assert before == constants.HF_HUB_OFFLINE


@pytest.fixture
def laion_clap(monkeypatch):
    """laion_clap with tokenizers and a text network that need no hub."""
    import transformers

    def make_text_network(name):
        settings = {"vocab_size": 100, "num_hidden_layers": 1, "intermediate_size": 64}
        return transformers.RobertaModel(transformers.RobertaConfig(max_position_embeddings=130, **settings))

    for name in ("BertTokenizer", "RobertaTokenizer", "BartTokenizer"):
        monkeypatch.setattr(
            getattr(transformers, name), "from_pretrained", lambda repository: FixedTokenizer()
        )
    monkeypatch.setattr(transformers.RobertaModel, "from_pretrained", make_text_network)
    monkeypatch.setattr(clap, "check_hub_files", lambda name: None)
    paths = list(sys.path)
    yield pytest.importorskip("laion_clap")
    sys.path[:] = paths
    for name in [name for name in sys.modules if name.split(".")[0] in ("laion_clap", "clap_module")]:
        del sys.modules[name]


@pytest.mark.slow
def test_audio_and_text_vectors_are_those_of_laion_clap(checkpoint_file, laion_clap, capsys):
    torch.manual_seed(0)
    theirs = laion_clap.CLAP_Module(enable_fusion=False, amodel="HTSAT-base", device="cpu")
    # the published file holds one buffer more than today's RoBERTa, which laion_clap's loader takes out
    extra = {"text_branch.embeddings.position_ids": torch.arange(130)[None]}
    torch.save({"state_dict": {**theirs.model.state_dict(), **extra}}, checkpoint_file)
    theirs.eval()
    encoder = get_encoder("clap", device="cpu")
    assert capsys.readouterr().out == ""  # laion_clap prints while it loads; stdout is for results

    clips = [make_tone("a", rate_hz=48_000, seconds=2.0), make_tone("b", rate_hz=48_000, seconds=2.0, hz=300)]
    clips.append(make_tone("long", rate_hz=48_000, seconds=21.0))
    ours = encoder.embed(clips)
    assert np.bincount(ours.clip_index).tolist() == [1, 1, 3]
    np.testing.assert_array_equal(ours.values, encoder.embed(clips).values)  # no random crop
    np.testing.assert_allclose(np.linalg.norm(ours.values, axis=1), 1, atol=1e-5)
    for index in range(2):
        audio = torch.from_numpy(clips[index].audio)
        expected = theirs.get_audio_embedding_from_data(audio, use_tensor=True).detach().numpy()
        np.testing.assert_allclose(ours.values[index], expected[0], atol=1e-5)

    texts = ["calm piano music", "fast drums"]
    words = encoder.embed_text(texts)
    np.testing.assert_allclose(words.values, theirs.get_text_embedding(texts), atol=1e-5)
    alone = encoder.embed_text(texts[:1])
    np.testing.assert_allclose(alone.values, words.values[:1], atol=1e-5)

    score = score_embeddings(parse_metric("clap_score"), encoder.embed(clips[:2]), alone, texts[0])
    assert score.value == pytest.approx(float((ours.values[:2] @ words.values[0]).mean()), abs=1e-6)
