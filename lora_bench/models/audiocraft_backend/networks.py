"""Build audiocraft's networks from a MusicGen's parts, with audiocraft's own builders."""

from __future__ import annotations

import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import torch
from audiocraft.models import builders
from audiocraft.models.encodec import EncodecModel
from audiocraft.models.lm import LMModel
from audiocraft.modules.conditioners import T5Conditioner, TextConditioner
from audiocraft.utils.autocast import TorchAutocast
from omegaconf import OmegaConf

from lora_bench.models.audiocraft_backend.attention import split_attentions
from lora_bench.models.bridges.configs import codec_config_to_audiocraft, decoder_config_to_audiocraft
from lora_bench.models.bridges.parts import MusicGenParts, add_identity, load_weights
from lora_bench.models.bridges.tensors import codec_to_audiocraft, decoder_to_audiocraft

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel


class GivenT5Conditioner(T5Conditioner):
    """audiocraft's text conditioner around a loaded T5; the original fetches one by its name.

    T5 always runs in float32.
    """

    def __init__(self, encoder: T5EncoderModel, tokenizer: PreTrainedTokenizerBase, output_dim: int) -> None:
        TextConditioner.__init__(self, cast("Any", encoder).config.d_model, output_dim)
        self.device = "cpu"
        self.name = "given"
        self.finetune = False
        self.word_dropout = 0.0
        self.autocast = TorchAutocast(enabled=False)
        self.normalize_text = False
        self.t5_tokenizer = cast("Any", tokenizer)
        # not a submodule, as in the original: it is not saved or trained with the rest
        self.__dict__["t5"] = encoder


@contextmanager
def _given_text_encoder(parts: MusicGenParts) -> Generator[None]:
    """Make audiocraft's builder use the parts' T5."""

    def make(*, output_dim: int, **_: Any) -> GivenT5Conditioner:
        return GivenT5Conditioner(parts.text_encoder, parts.tokenizer, output_dim)

    original = builders.T5Conditioner
    cast("Any", builders).T5Conditioner = make
    try:
        yield
    finally:
        builders.T5Conditioner = original


def build_lm(parts: MusicGenParts, name: str, *, is_split: bool = False) -> LMModel:
    """Build audiocraft's language model with the parts' weights, float32, in eval mode.

    Args:
        parts: the model.
        name: for errors.
        is_split: split attentions, which share the parts' tensors; else packed ones, as in audiocraft.

    Raises:
        ModelError: the weights do not fit.
    """
    decoder, codec = cast("Any", parts.config).decoder, cast("Any", parts.config).audio_encoder
    frame_rate_hz = codec.sampling_rate / codec.hop_length
    config = OmegaConf.create(decoder_config_to_audiocraft(decoder, frame_rate_hz, "given"))
    config.device = "meta"  # no time or memory for random weights
    with _given_text_encoder(parts), torch.device("meta"):
        lm = builders.get_lm_model(cast("Any", config))
    if is_split:
        split_attentions(lm)
    config.device = lm.condition_provider.device = "cpu"
    state = add_identity(parts.decoder_state, decoder.hidden_size)
    load_weights(lm, decoder_to_audiocraft(state, is_packed=not is_split), name)
    cast("Any", lm).cfg = config
    return lm.eval()


def build_codec(parts: MusicGenParts, name: str) -> EncodecModel:
    """Build audiocraft's EnCodec of one channel with the parts' weights, float32, in eval mode.

    Raises:
        ModelError: the weights do not fit.
    """
    decoder, codec = cast("Any", parts.config).decoder, cast("Any", parts.config).audio_encoder
    n_codebooks = decoder.num_codebooks // decoder.audio_channels
    config = OmegaConf.create(codec_config_to_audiocraft(codec, n_codebooks))
    # torch warns about the older weight norm of every convolution
    with warnings.catch_warnings(action="ignore", category=FutureWarning), torch.random.fork_rng(devices=[]):
        made = cast("EncodecModel", builders.get_compression_model(cast("Any", config)))
    load_weights(made, codec_to_audiocraft(parts.codec_state), name)
    return made.eval()


def find_conditioner(lm: LMModel) -> GivenT5Conditioner:
    """Return the text conditioner."""
    return cast("GivenT5Conditioner", lm.condition_provider.conditioners["description"])
