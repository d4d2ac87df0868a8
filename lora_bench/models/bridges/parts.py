"""A MusicGen as data in transformers' terms, between reading a source and writing a target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from transformers import MusicgenConfig, MusicgenForConditionalGeneration

from lora_bench.errors import ModelError
from lora_bench.models.bridges.tensors import NOT_STORED, is_identity
from lora_bench.models.network_parts import Network
from lora_bench.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5EncoderModel

PROJECTION = "enc_to_dec_proj"


@dataclass(frozen=True)
class MusicGenParts:
    """Configs, weights and text encoder.

    Attributes:
        config: of the whole model.
        decoder_state: `decoder.*`, and `enc_to_dec_proj.*` if text states are projected.
        codec_state: names within `EncodecModel`.
    """

    config: MusicgenConfig
    decoder_state: dict[str, Tensor]
    codec_state: dict[str, Tensor]
    text_encoder: T5EncoderModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def has_projection(self) -> bool:
        """Whether text states are projected."""
        return f"{PROJECTION}.weight" in self.decoder_state


def require_cross_attention(network: Network, name: str) -> MusicgenForConditionalGeneration:
    """Return a network that has a form on audiocraft's classes here.

    Raises:
        ModelError: it is a melody model.
    """
    if isinstance(network, MusicgenForConditionalGeneration):
        return network
    raise ModelError(
        f"model.id: {name}: a melody model, expected a text-to-music MusicGen: melody models run in transformers' "
        "form only; leave out model.backend audiocraft, or convert with --form transformers"
    )


def take_apart(
    network: MusicgenForConditionalGeneration, tokenizer: PreTrainedTokenizerBase
) -> MusicGenParts:
    """Return a network's parts, which share its tensors."""
    whole = cast("nn.Module", network).state_dict()
    decoder = {
        name: tensor
        for name, tensor in whole.items()
        if name.startswith(("decoder.", PROJECTION)) and not NOT_STORED.search(name)
    }
    codec = cast("nn.Module", network.audio_encoder).state_dict()
    text_encoder = cast("T5EncoderModel", network.text_encoder)
    return MusicGenParts(network.config, decoder, codec, text_encoder, tokenizer)


def put_together(parts: MusicGenParts, name: str) -> MusicgenForConditionalGeneration:
    """Build a transformers network from parts, float32, in eval mode.

    Raises:
        ModelError: the weights do not fit the config, or transformers has no place for them.
    """
    with quiet_transformers(), torch.random.fork_rng(devices=[]):
        network = MusicgenForConditionalGeneration(parts.config)
    text = cast("nn.Module", parts.text_encoder).state_dict()
    state = dict(parts.decoder_state)
    state |= {f"audio_encoder.{key}": tensor for key, tensor in parts.codec_state.items()}
    state |= {f"text_encoder.{key}": tensor for key, tensor in text.items()}
    if parts.has_projection and not hasattr(network, PROJECTION):
        raise ModelError(
            f"{name}: its text states are projected though text and decoder are equally wide, which "
            "transformers' MusicGen cannot express; use it with model.backend audiocraft"
        )
    load_weights(network, state, name)
    cast("Any", network).tie_weights()  # T5's embedding has two names
    return cast("MusicgenForConditionalGeneration", cast("nn.Module", network).eval())


def load_weights(module: Any, state: dict[str, Tensor], name: str) -> None:
    """Load all weights of a module, which keeps these tensors without copies.

    Raises:
        ModelError: weights are missing, left over, or of other shapes.
    """
    try:
        module.load_state_dict(state, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ModelError(
            f"model.id: {name}: the weights do not fit the config ({' '.join(lines)[:300]}); expected those of "
            "one and the same MusicGen"
        ) from error


def drop_identity(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return decoder weights without a text projection that is the identity."""
    if f"{PROJECTION}.weight" not in state or not is_identity(state):
        return state
    return {name: tensor for name, tensor in state.items() if not name.startswith(PROJECTION)}


def add_identity(state: dict[str, Tensor], width: int) -> dict[str, Tensor]:
    """Return decoder weights with a text projection, which audiocraft always has."""
    if f"{PROJECTION}.weight" in state:
        return state
    return state | {f"{PROJECTION}.weight": torch.eye(width), f"{PROJECTION}.bias": torch.zeros(width)}
