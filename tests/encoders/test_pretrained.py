"""The networks of frechet-audio-distance: found, refused, and equal to its own embeddings.

Real weights are not part of the tests: networks of the same classes with random weights are saved where the
real ones would lie, and both sides load them.
"""

from __future__ import annotations

import dataclasses
import sys
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from support.sounds import make_tone, make_tones
from torch import nn

from lora_bench.encoders import ENCODER_NAMES, checkpoints, get_encoder, pretrained
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics import METRIC_NAMES, parse_metric
from lora_bench.metrics.names import PROMPT_RATINGS

HUB_CODE = '''
import torch
from torch import hub, nn

class VGGish(nn.Module):
    """The interface of torchvggish's class on a network of two layers."""

    def __init__(self, url, device=None, preprocess=True, postprocess=True):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 4, 3, stride=8), nn.ReLU())
        self.embeddings = nn.Sequential(nn.Linear(4 * 12 * 8, 16), nn.ReLU(), nn.Linear(16, 128), nn.ReLU())
        self.load_state_dict(hub.load_state_dict_from_url(url))
        self.device = torch.device("cpu") if device is None else device
        self.preprocess, self.postprocess = preprocess, postprocess

    def _preprocess(self, x, fs):
        n = (len(x) - 400) // 160 // 96
        power = torch.tensor(x[: n * 96 * 160], dtype=torch.float32).reshape(n, 1, 96, 160)[..., :64]
        return torch.log(power.abs() + 0.01).requires_grad_()

    def forward(self, x, fs=None):
        if self.preprocess:
            x = self._preprocess(x, fs)
        x = self.embeddings(self.features(x.to(self.device)).flatten(1))
        return torch.round(x * 255) if self.postprocess else x

def vggish(**settings):
    return VGGish("https://localhost/none/vggish-10086976.pth", **settings)
'''


class TinyPann(nn.Module):
    """A network with Cnn14's signature and a short embedding."""

    def __init__(self, **settings):
        super().__init__()
        self.layer = nn.Linear(4, 8)

    def forward(self, x, mixup_lambda=None):
        parts = torch.stack([part.abs().mean(1) for part in x.chunk(4, dim=1)], 1)
        return {"embedding": self.layer(parts)}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty checkpoint folder; no request can leave."""
    monkeypatch.setenv("LORA_BENCH_CHECKPOINTS", str(tmp_path))

    def refuse(*args, **kwargs):
        raise AssertionError(f"a download was tried: {args}")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "urlopen", refuse)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


@pytest.fixture
def fad(monkeypatch):
    """frechet-audio-distance's class; laion_clap, which needs a network to be imported, is replaced."""
    if find_spec("frechet_audio_distance") is None:
        pytest.skip("the encoders extra is not installed")
    if "frechet_audio_distance" not in sys.modules:
        monkeypatch.setitem(sys.modules, "laion_clap", ModuleType("laion_clap"))
    from frechet_audio_distance import FrechetAudioDistance

    return FrechetAudioDistance


def save_vggish(folder):
    place = folder / "harritaylor_torchvggish_master"
    place.mkdir()
    (place / "hubconf.py").write_text(HUB_CODE)
    torch.manual_seed(0)
    shapes = {
        "features.0.weight": (4, 1, 3, 3), "features.0.bias": (4,),
        "embeddings.0.weight": (16, 384), "embeddings.0.bias": (16,),
        "embeddings.2.weight": (128, 16), "embeddings.2.bias": (128,),
    }  # fmt: skip
    state = {name: torch.randn(shape) / 4 for name, shape in shapes.items()}
    torch.save(state, folder / "checkpoints" / "vggish-10086976.pth")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "vggish",
            r"harritaylor_torchvggish_master is missing\. Get it from https://github\.com/harritaylor",
        ),
        ("pann", r"Cnn14_16k_mAP%3D0\.438\.pth is missing\. Get it from https://zenodo\.org/record/3987831"),
        ("pann-32k", r"Cnn14_mAP%3D0\.431\.pth is missing"),
        (
            "clap",
            r"music_audioset_epoch_15_esc_90\.14\.pt is missing\. Get it from https://huggingface\.co/lukewys",
        ),
        ("encodec-24k", r"encodec_24khz-d7cc33bc\.th is missing\. Get it from https://dl\.fbaipublicfiles"),
    ],
)
def test_missing_weights_are_unscored_with_file_folder_and_source(name, words, folder):
    with pytest.raises(UnscoredError, match=words) as caught:
        get_encoder(name)
    assert str(folder) in str(caught.value)
    assert "LORA_BENCH_CHECKPOINTS" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package"),
    [("pann", "frechet_audio_distance"), ("encodec-24k", "encodec"), ("clap", "laion_clap")],
)
def test_a_missing_package_is_unscored_with_the_way_to_get_it(name, package, monkeypatch):
    real = checkpoints.importlib.util.find_spec
    monkeypatch.setattr(
        checkpoints.importlib.util, "find_spec", lambda found: None if found == package else real(found)
    )
    with pytest.raises(
        UnscoredError, match=rf"{package} is not installed; `pip install 'lora-bench\[encoders\]'`"
    ):
        get_encoder(name)


def test_every_metric_has_an_encoder():
    assert {parse_metric(name).encoder for name in METRIC_NAMES} <= {*ENCODER_NAMES, *PROMPT_RATINGS}


def test_a_damaged_checkpoint_is_unscored_by_name(folder, monkeypatch):
    monkeypatch.setattr(pretrained, "import_fad_networks", lambda name: SimpleNamespace(Cnn14_16k=TinyPann))
    (folder / "Cnn14_16k_mAP%3D0.438.pth").write_bytes(b"not a checkpoint")
    with pytest.raises(UnscoredError, match=r"Cnn14_16k_mAP%3D0\.438\.pth cannot be loaded"):
        get_encoder("pann")


@pytest.fixture
def tiny_pann(folder, monkeypatch):
    monkeypatch.setattr(pretrained, "import_fad_networks", lambda name: SimpleNamespace(Cnn14_16k=TinyPann))
    torch.manual_seed(0)
    torch.save({"model": TinyPann().state_dict()}, folder / "Cnn14_16k_mAP%3D0.438.pth")
    return get_encoder("pann", device="cpu")


def test_pann_gives_one_vector_per_clip_whatever_stands_beside_it(tiny_pann):
    clips = [*make_tones(3), make_tone("long", seconds=2.5), make_tone("last")]
    embeddings = tiny_pann.embed(clips)
    assert embeddings.values.shape == (5, 8)
    for index, clip in enumerate(clips):
        np.testing.assert_allclose(embeddings.values[index], tiny_pann.embed([clip]).values[0], atol=1e-6)


def test_pann_weights_are_in_the_provenance(tiny_pann, folder):
    first = tiny_pann.provenance["weights_hash"]
    torch.save({"model": TinyPann().state_dict()}, folder / "Cnn14_16k_mAP%3D0.438.pth")
    assert get_encoder("pann", device="cpu").provenance["weights_hash"] != first
    assert len(first) == 64


def test_a_clip_too_short_for_the_network_is_refused_by_name(tiny_pann):
    with pytest.raises(ScoreError, match=r"clip brief: 3200 samples at 16000 Hz are too short .* 5120"):
        tiny_pann.embed([make_tone("brief", seconds=0.2)])


def test_vggish_is_batched_and_equals_the_embeddings_of_frechet_audio_distance(folder, fad, monkeypatch):
    save_vggish(folder)
    clips = [make_tone("a", seconds=3.0), make_tone("b", hz=300, seconds=1.1), make_tone("c", seconds=3.0)]
    embeddings = get_encoder("vggish", device="cpu").embed(clips)
    assert np.bincount(embeddings.clip_index).tolist() == [3, 1, 3]
    # its loader asks GitHub for the repository's default branch first
    real = torch.hub.load
    monkeypatch.setattr(
        torch.hub,
        "load",
        lambda repo_or_dir, model: real(
            str(folder / "harritaylor_torchvggish_master"), model, source="local"
        ),
    )
    theirs = fad(ckpt_dir=str(folder), model_name="vggish")
    expected = theirs.get_embeddings([clip.audio[0] for clip in clips], 16_000)
    assert (expected < 0).any()  # the last ReLU is dropped
    np.testing.assert_allclose(embeddings.values, expected, atol=1e-5)


def test_vggish_leaves_the_hub_folder_as_it_was(folder):
    save_vggish(folder)
    before = torch.hub.get_dir()
    get_encoder("vggish", device="cpu")
    assert torch.hub.get_dir() == before


def test_encodec_24k_is_batched_and_equals_the_embeddings_of_frechet_audio_distance(folder, fad, monkeypatch):
    import encodec.model

    torch.manual_seed(0)
    model = encodec.EncodecModel.encodec_model_24khz(pretrained=False)
    path = folder / "checkpoints" / "encodec_24khz-d7cc33bc.th"
    torch.save(model.state_dict(), path)
    monkeypatch.setattr(encodec.model, "_check_checksum", lambda path, checksum: None)
    clips = make_tones(3, rate_hz=24_000, seconds=0.5)
    embeddings = get_encoder("encodec-24k", device="cpu").embed(clips)
    assert embeddings.values.shape == (3 * 38, 128)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda url, **settings: torch.load(path))
    theirs = fad(ckpt_dir=str(folder), model_name="encodec", sample_rate=24_000)
    expected = theirs.get_embeddings([clip.audio[0] for clip in clips], 24_000)
    np.testing.assert_allclose(embeddings.values, expected, atol=1e-5)


def test_an_encodec_file_of_another_content_is_unscored(folder):
    (folder / "checkpoints" / "encodec_24khz-d7cc33bc.th").write_bytes(b"something else")
    with pytest.raises(UnscoredError, match=r"encodec_24khz-d7cc33bc\.th cannot be loaded .*get it again"):
        get_encoder("encodec-24k")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rate_hz"), [("pann", 16_000), ("pann-32k", 32_000)])
def test_pann_equals_the_embeddings_of_frechet_audio_distance(name, rate_hz, folder, fad):
    _, class_name, file_name, window, hop, fmax = pretrained.PANN_RATES[name]
    networks = checkpoints.import_fad_networks(name)
    torch.manual_seed(0)
    network = getattr(networks, class_name)(
        sample_rate=rate_hz,
        window_size=window,
        hop_size=hop,
        mel_bins=64,
        fmin=50,
        fmax=fmax,
        classes_num=527,
    )
    torch.save({"model": network.state_dict()}, folder / file_name)
    clips = make_tones(3, rate_hz=rate_hz, seconds=2.0)
    embeddings = get_encoder(name, device="cpu").embed(clips)
    theirs = fad(ckpt_dir=str(folder), model_name="pann", sample_rate=rate_hz)
    # its loop joins one-dimensional vectors end to end: 3 x 2048 numbers, no matrix
    expected = theirs.get_embeddings([clip.audio[0] for clip in clips], rate_hz).reshape(3, 2048)
    assert np.abs(expected).max() > 0
    np.testing.assert_allclose(embeddings.values, expected, atol=1e-4, rtol=1e-3)


def test_its_own_loop_is_never_entered(folder, monkeypatch, tiny_pann):
    """A clip that fails stops the stage; frechet-audio-distance would print and go on without it."""
    bad = dataclasses.replace(make_tone("bad"), audio=np.full((1, 16_000), np.nan, np.float32))
    with pytest.raises(ScoreError, match="clip bad"):
        tiny_pann.embed([make_tone("good"), bad])
