"""MERT, Audiobox Aesthetics and PaSST on tiny random checkpoints in the form of the published ones.

All but MERT need packages that are in no extra; their tests are skipped where these are not installed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import HubertConfig, HubertModel, Wav2Vec2FeatureExtractor

from lora_bench.artifacts import AudioClip
from lora_bench.encoders import get_encoder
from lora_bench.encoders.passt import Passt
from lora_bench.errors import SpecError, UnscoredError
from lora_bench.metrics import parse_metric
from lora_bench.stages.score import score_embeddings

HIDDEN = 16
MERT_CONFIG = {
    "model_type": "mert_model",
    "architectures": ["MERTModel"],
    "auto_map": {"AutoModel": "modeling_MERT.MERTModel"},
    "hidden_size": HIDDEN,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "feature_extractor_cqt": False,
    "feature_extractor_cqt_bins": 336,
    "deepnorm": False,
    "attention_relax": -1.0,
}
AUDIO = np.random.default_rng(0).normal(0.0, 0.1, (2, 24_000)).astype(np.float32)


def make_clips(n: int = 6, rate_hz: int = 24_000, seconds: float = 1.0) -> list[AudioClip]:
    rng = np.random.default_rng(1)
    return [
        AudioClip(
            f"c{i}", f"c{i}", rng.normal(0, 0.1, (1, int(rate_hz * seconds))).astype(np.float32), rate_hz
        )
        for i in range(n)
    ]


def save_mert(folder: Path, **changes: Any) -> HubertModel:
    """Write a random checkpoint as MERT's are: names of weight norm as of older torch, a head that is not used."""
    folder.mkdir()
    config = MERT_CONFIG | changes
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = HubertModel(HubertConfig(**{k: v for k, v in config.items() if k != "model_type"})).eval()
    former = {"weight.original0": "weight_g", "weight.original1": "weight_v"}
    weights = {"final_proj.weight": torch.zeros(2, 2)}
    for name, tensor in network.state_dict().items():
        stem, _, last = name.partition("parametrizations.")
        weights[f"{stem}{former.get(last, last)}"] = tensor.contiguous()
    torch.save(weights, folder / "pytorch_model.bin")
    Wav2Vec2FeatureExtractor(sampling_rate=24_000, do_normalize=True).save_pretrained(folder)
    return network


@pytest.mark.parametrize("layer", [-1, 0, 2])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_mert_gives_the_pooled_states_of_a_layer(tmp_path: Path, layer: int, pool: str) -> None:
    network = save_mert(tmp_path / "mert")
    encoder = get_encoder(
        "mert", device="cpu", settings={"weights": str(tmp_path / "mert"), "layer": layer, "pool": pool}
    )
    clips = [AudioClip(f"c{i}", "g", row[None], 24_000) for i, row in enumerate(AUDIO)]
    found = encoder.embed(clips).values
    normal = (AUDIO - AUDIO.mean(axis=1, keepdims=True)) / np.sqrt(AUDIO.var(axis=1, keepdims=True) + 1e-7)
    with torch.inference_mode():
        states = network(torch.from_numpy(normal), output_hidden_states=True).hidden_states[layer]
    expected = states.mean(dim=1) if pool == "mean" else states.amax(dim=1)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)
    assert encoder.provenance["package"].startswith("lora-bench ")
    assert len(str(encoder.provenance["weights_hash"])) == 64


def test_mert_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    with pytest.raises(
        UnscoredError, match=r"mert: its weights m-a-p/none are not on this machine.*`hf download"
    ):
        get_encoder("mert", settings={"weights": "m-a-p/none"})
    save_mert(tmp_path / "cqt", feature_extractor_cqt=True)
    with pytest.raises(UnscoredError, match="sets feature_extractor_cqt, which need MERT's own code"):
        get_encoder("mert", settings={"weights": str(tmp_path / "cqt")})
    save_mert(tmp_path / "deep")
    stated = json.loads((tmp_path / "deep" / "config.json").read_text())
    (tmp_path / "deep" / "config.json").write_text(json.dumps(stated | {"num_hidden_layers": 4}))
    with pytest.raises(UnscoredError, match=r"lacks 16 weights of HuBERT, such as encoder\.layers\.3"):
        get_encoder("mert", settings={"weights": str(tmp_path / "deep")})
    save_mert(tmp_path / "mert")
    with pytest.raises(UnscoredError, match="layer 9 does not exist; expected 0 to 3"):
        get_encoder("mert", settings={"weights": str(tmp_path / "mert"), "layer": 9})
    with pytest.raises(SpecError, match=r"encoders\.mert\.pool"):
        get_encoder("mert", settings={"pool": "median"})


def test_mad_of_mert_has_an_interval(tmp_path: Path) -> None:
    save_mert(tmp_path / "mert")
    encoder = get_encoder("mert", device="cpu", settings={"weights": str(tmp_path / "mert"), "pool": "max"})
    clips = make_clips(20, seconds=0.2)
    found = score_embeddings(parse_metric("mad/mert"), encoder.embed(clips[:10]), encoder.embed(clips[10:]))
    assert found.ci_low is not None
    assert found.provenance["distance_package"] == found.provenance["package"]


def test_a_mean_is_for_ratings_only(tmp_path: Path) -> None:
    save_mert(tmp_path / "mert")
    encoder = get_encoder("mert", device="cpu", settings={"weights": str(tmp_path / "mert")})
    embedded = encoder.embed(make_clips(4, seconds=0.2))
    with pytest.raises(UnscoredError, match="`mert` does not say that higher is better"):
        score_embeddings(parse_metric("mean/mert"), embedded, embedded)
    for name in ("mean/mfcc20", "mean/audiobox-pq@codec"):
        with pytest.raises(ValueError, match="`mean/<encoder>` is for plug-ins that rate single clips"):
            parse_metric(name)


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    for name in ("hear21passt.base", "audiobox_aesthetics.model.aes"):
        monkeypatch.setitem(sys.modules, name, None)
    for encoder, package in (
        ("passt", "hear21passt"),
        ("audiobox-pq", "audiobox_aesthetics"),
    ):
        with pytest.raises(
            UnscoredError, match=f"the package {package} cannot be imported.*`pip install {package}`"
        ):
            get_encoder(encoder)


@pytest.mark.filterwarnings("ignore")  # of the package
def test_audiobox_gives_the_ratings_of_its_own_predictor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aes = pytest.importorskip("audiobox_aesthetics.model.aes", reason="audiobox_aesthetics is not installed")
    infer = pytest.importorskip("audiobox_aesthetics.infer", reason="audiobox_aesthetics is not installed")
    tiny = {
        "encoder_layers": 2, "encoder_embed_dim": HIDDEN, "encoder_ffn_embed_dim": 32, "encoder_attention_heads": 2,
        "conv_feature_layers": "[(8,10,5)] + [(8,3,2)] * 4 + [(8,2,2)] * 2", "conv_pos": 8, "conv_pos_groups": 4,
    }  # fmt: skip
    monkeypatch.setattr(aes, "DEFAULT_AUDIO_CFG", aes.WavLMConfig({**vars(aes.DEFAULT_AUDIO_CFG), **tiny}))
    scale = {axis: {"mean": 5.0 + place, "std": 2.0} for place, axis in enumerate(aes.AXES_NAME)}
    torch.manual_seed(0)
    network = aes.AesMultiOutput(nth_layer=3, target_transform=scale, proj_num_layer=1).eval()
    network.save_pretrained(tmp_path / "audiobox")
    predictor = infer.AesPredictor.__new__(infer.AesPredictor)
    vars(predictor).update(
        model=network, device="cpu", sample_rate=16_000, data_col="path",
        target_transform={axis: aes.Normalize(**stated) for axis, stated in scale.items()},
    )  # fmt: skip
    clips = make_clips(2, rate_hz=16_000, seconds=11.5)
    told = predictor.forward(
        [{"path": torch.from_numpy(clip.audio), "sample_rate": clip.sample_rate_hz} for clip in clips]
    )
    for axis in aes.AXES_NAME:
        name = f"audiobox-{axis.lower()}"
        encoder = get_encoder(name, device="cpu", settings={"weights": str(tmp_path / "audiobox")})
        found = encoder.embed(clips)
        np.testing.assert_allclose(found.values[:, 0], [row[axis] for row in told], rtol=1e-4)
    score = score_embeddings(parse_metric("mean/audiobox-pq"), found, found)
    assert score.value == pytest.approx(np.mean([row["PQ"] for row in told]), rel=1e-4)
    assert score.ci_low is not None
    assert not parse_metric("mean/audiobox-pq").lower_is_better


@pytest.mark.filterwarnings("ignore")  # of the package
def test_passt_gives_probabilities_per_ten_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    passt = pytest.importorskip("hear21passt.models.passt", reason="hear21passt is not installed")

    def make_tiny(arch: str, pretrained: bool) -> Any:
        assert not pretrained
        torch.manual_seed(0)
        return passt.PaSST(
            u_patchout=0, s_patchout_t=0, s_patchout_f=0, img_size=(128, 998), patch_size=16, stride=(10, 10),
            num_classes=527, embed_dim=HIDDEN, depth=1, num_heads=2, in_chans=1, distilled=True,
        )  # fmt: skip

    monkeypatch.setattr(passt, "get_model", make_tiny)
    monkeypatch.setenv("LORA_BENCH_CHECKPOINTS", str(tmp_path))
    with pytest.raises(UnscoredError, match=r"passt: its weights are not on this machine.*releases/download"):
        get_encoder("passt", device="cpu")
    (tmp_path / "checkpoints").mkdir()
    from lora_bench.encoders.passt import ARCH, FILE

    network = make_tiny(ARCH, pretrained=False).eval()
    torch.save(network.state_dict(), tmp_path / FILE)
    capsys.readouterr()
    encoder = get_encoder("passt", device="cpu")
    found = encoder.embed(make_clips(2, rate_hz=32_000, seconds=12.0))
    assert capsys.readouterr().out == ""
    assert found.values.shape == (4, 527)  # 10 s and 2 s of each
    np.testing.assert_allclose(found.values.sum(axis=1), 1.0, rtol=1e-5)
    score = score_embeddings(parse_metric("label-kl/passt"), found, found)
    assert score.value == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("n_samples", "lengths"),
    [
        (320_000, [320_000]),
        (323_199, [320_000]),  # the rest is shorter than a patch
        (323_200, [320_000, 3_200]),
        (700_000, [320_000, 320_000, 60_000]),
        (1_000, [1_000]),
    ],
)
def test_passt_hears_windows_of_ten_seconds_and_a_rest_that_gives_a_patch(
    n_samples: int, lengths: list[int]
) -> None:
    heard: list[int] = []

    def network(piece: torch.Tensor) -> torch.Tensor:
        heard.append(piece.shape[1])
        return torch.zeros(len(piece), 527)

    passt = Passt.__new__(Passt)
    passt._network, passt._device = network, "cpu"
    found = passt.embed(np.zeros((2, n_samples), np.float32))
    assert heard == lengths
    assert found.shape == (2, len(lengths), 527)
