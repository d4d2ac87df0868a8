"""MuQ on tiny random checkpoints: the package's class where it is installed, else a stand-in of its interface."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2ConformerConfig
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.wav2vec2_conformer.modeling_wav2vec2_conformer import Wav2Vec2ConformerEncoder

from lora_bench.encoders.muq import Muq, MuqSettings
from lora_bench.encoders.plugin import PluginEncoder
from lora_bench.errors import SpecError, UnscoredError
from lora_bench.plugins import PluginSource

HIDDEN, DEPTH = 16, 3
CONFORMER = json.loads(
    json.dumps(
        Wav2Vec2ConformerConfig(
            num_attention_heads=2, intermediate_size=32, hidden_size=HIDDEN, num_hidden_layers=DEPTH,
            num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, position_embeddings_type="rotary",
        ).to_dict()
    )
)  # fmt: skip
CONFIG: dict[str, Any] = {
    "encoder_dim": HIDDEN, "encoder_depth": DEPTH, "conv_dim": 8, "codebook_size": 8, "w2v2_config": CONFORMER,
    "stat": {"melspec_2048_mean": 6.77, "melspec_2048_std": 18.42},
}  # fmt: skip
AUDIO = np.random.default_rng(0).normal(0.0, 0.1, (2, 24_000)).astype(np.float32)


class Dotted(dict[str, Any]):
    """As `EasyDict`, with which the package configures the conformer."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    __setattr__ = dict.__setitem__


class StandIn(torch.nn.Module):
    """The parts of `muq.muq.models.muq_model.MuQModel` that give the states."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.conv = torch.nn.Conv1d(
            1, config.encoder_dim, 960, stride=960
        )  # 25 frames per second, as MuQ has
        self.conformer = Wav2Vec2ConformerEncoder(Dotted(config.w2v2_config))

    def start(self, audio: torch.Tensor) -> torch.Tensor:
        return self.conv(audio[:, None]).transpose(1, 2)


class StandInMuQ(torch.nn.Module, PyTorchModelHubMixin):
    """The interface of `muq.MuQ` 0.1.0."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = Dotted(config)
        self.model = StandIn(self.config)

    def forward(self, x: torch.Tensor, attention_mask: Any = None, output_hidden_states: bool = True) -> Any:
        states = self.model.conformer(self.model.start(x), output_hidden_states=True)["hidden_states"]
        return BaseModelOutput(last_hidden_state=states[-1], hidden_states=states)


def start_package(model: Any, audio: torch.Tensor) -> torch.Tensor:
    return model.conv(model.normalize(model.preprocessing(audio, ["melspec_2048"]))["melspec_2048"])


@pytest.fixture(params=["stand-in", "package"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The class `MuQ`, by which `import muq` then finds it."""
    if request.param == "package":
        return pytest.importorskip("muq", reason="muq is not installed").MuQ
    module = ModuleType("muq")
    module.MuQ = StandInMuQ  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "muq", module)
    return StandInMuQ


def save_muq(kind: Any, folder: Path) -> Any:
    torch.manual_seed(0)
    network = kind(CONFIG).eval()
    network.save_pretrained(folder, config=CONFIG)
    return network


def make(folder: Path | str, **settings: Any) -> PluginEncoder:
    source = PluginSource("lora-bench 0", lambda: Muq)
    return PluginEncoder("muq", source, {"weights": str(folder), **settings}, device="cpu")


def fail_for_memory(*_: Any, **__: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def compute_states(network: Any) -> list[torch.Tensor]:
    """The states by the layers themselves, without hooks."""
    model, conformer = network.model, network.model.conformer
    audio = torch.from_numpy(AUDIO)
    with torch.inference_mode():
        state = model.start(audio) if isinstance(model, StandIn) else start_package(model, audio)
        states, places = [], conformer.embed_positions(state)
        for layer in conformer.layers:
            states.append(state)
            state = layer(state, attention_mask=None, relative_position_embeddings=places)
        return [*states, conformer.layer_norm(state)]


@pytest.mark.filterwarnings("ignore")  # of the package
@pytest.mark.parametrize("layer", [-1, 0, 2, 3])
@pytest.mark.parametrize("pool", ["mean", "max"])
def test_muq_gives_the_pooled_states_of_a_layer(kind: Any, tmp_path: Path, layer: int, pool: str) -> None:
    network = save_muq(kind, tmp_path / "muq")
    encoder = make(tmp_path / "muq", layer=layer, pool=pool)
    network.model.conformer.config._attn_implementation = "eager"
    for part in network.model.conformer.modules():
        if hasattr(part, "config"):
            part.config._attn_implementation = "eager"
    states = compute_states(network)[layer]
    expected = states.mean(dim=1) if pool == "mean" else states.amax(dim=1)
    for _ in range(2):  # states of one call are not those of the next
        np.testing.assert_allclose(encoder.plugin.embed(AUDIO), expected.numpy(), atol=2e-5)
    np.testing.assert_allclose(encoder.plugin.embed(AUDIO[:1]), expected[:1].numpy(), atol=2e-5)
    assert (encoder.dim, encoder.sample_rate_hz) == (HIDDEN, 24_000)
    assert len(str(encoder.provenance["weights_hash"])) == 64


@pytest.mark.filterwarnings("ignore")  # of the package
def test_states_of_a_call_that_failed_are_not_those_of_the_next(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_muq(kind, tmp_path / "muq")
    encoder = make(tmp_path / "muq", layer=2)
    expected = encoder.plugin.embed(AUDIO[:1])
    last = encoder.plugin._network.model.conformer.layers[-1]  # pyright: ignore[reportAttributeAccessIssue]
    with monkeypatch.context() as patch:
        patch.setattr(last, "forward", fail_for_memory)
        with pytest.raises(torch.OutOfMemoryError):
            encoder.plugin.embed(AUDIO)
    np.testing.assert_array_equal(encoder.plugin.embed(AUDIO[:1]), expected)


@pytest.mark.filterwarnings("ignore")  # of the package
def test_muq_refuses_what_it_cannot_read(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(
        UnscoredError, match=r"muq: its weights OpenMuQ/none are not on this machine.*`hf downl"
    ):
        make("OpenMuQ/none")
    save_muq(kind, tmp_path / "muq")
    with pytest.raises(UnscoredError, match="muq: layer 4 does not exist; expected 0 to 3"):
        make(tmp_path / "muq", layer=4)
    with pytest.raises(SpecError, match=r"encoders\.muq\.pool"):
        make(tmp_path / "muq", pool="median")
    weights = load_file(tmp_path / "muq" / "model.safetensors")
    gone = [name for name in weights if ".layers.1." in name]
    save_file({k: v for k, v in weights.items() if k not in gone}, tmp_path / "muq" / "model.safetensors")
    with pytest.raises(
        UnscoredError, match=rf"lacks {len(gone)} weights of MuQ, such as model\.conformer\.layers\.1"
    ):
        make(tmp_path / "muq")
    (tmp_path / "muq" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(UnscoredError, match="muq"):
        make(tmp_path / "muq")


@pytest.mark.skipif(importlib.util.find_spec("muq") is not None, reason="muq is installed")
def test_without_the_package_the_command_that_installs_it_is_told(tmp_path: Path) -> None:
    with pytest.raises(UnscoredError, match=r"muq: the package muq cannot be imported .* `pip install muq`"):
        make(tmp_path)


def test_the_published_weights_are_the_default() -> None:
    assert MuqSettings().weights == "OpenMuQ/MuQ-large-msd-iter"
