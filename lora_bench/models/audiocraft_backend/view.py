"""audiocraft's decoder under transformers' names: the same modules in another tree.

Targets then mean the same, an adapter starts with the same numbers and is saved under the same names, and the
extraction of weights needs no second version.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import torch
from audiocraft.models.lm import LMModel
from torch import Tensor, nn
from transformers import MusicgenConfig
from transformers.models.musicgen.modeling_musicgen import MusicgenSinusoidalPositionalEmbedding

from lora_bench.models.audiocraft_backend.attention import split_attentions
from lora_bench.models.audiocraft_backend.networks import find_conditioner

LAYER = {
    "self_attn": "self_attn",
    "self_attn_layer_norm": "norm1",
    "encoder_attn": "cross_attention",
    "encoder_attn_layer_norm": "norm_cross",
    "fc1": "linear1",
    "fc2": "linear2",
    "final_layer_norm": "norm2",
}


class AliasedModules(nn.Module):
    """Modules of an owner under other names; replacing one here replaces it there.

    Args:
        owner: of the modules; not itself part of this tree.
        names: name here -> name there.
    """

    def __init__(self, owner: nn.Module, names: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.__dict__["_aliased"] = (owner, {})
        for alias, name in (names or {}).items():
            self.alias(alias, name)

    def alias(self, alias: str, name: str) -> None:
        """Add the owner's module `name` as `alias`, at the end of the tree."""
        owner, names = self.__dict__["_aliased"]
        self.add_module(alias, cast("nn.Module", getattr(owner, name)))
        names[alias] = name

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        owner, names = self.__dict__.get("_aliased", (None, {}))
        if name in names:
            setattr(owner, names[name], value)


class SinusoidalPositions:
    """The positions in float32, for any arithmetic of the decoder, and rounded as in transformers.

    audiocraft computes them in the decoder's arithmetic: in bfloat16 the error exceeds 1 from step 500 on.  Even in
    float32 its order of operations gives differences up to 6e-5, which sometimes change a code.  With one table, the
    same noise gives the same clip on both libraries.
    """

    def __init__(self, num_positions: int, embedding_dim: int) -> None:
        self.num_positions = num_positions
        self.embedding_dim = embedding_dim

    def get_embedding(self, num_positions: int, embedding_dim: int) -> Tensor:
        """Return the table, float32 [num_positions, embedding_dim]."""
        return MusicgenSinusoidalPositionalEmbedding.get_embedding(num_positions, embedding_dim)


class MusicgenView(AliasedModules):
    """The decoder and the text projection of audiocraft's model.

    Args:
        lm: audiocraft's language model; packed attentions are split.
        config: transformers' config of the model.
        has_projection: whether `enc_to_dec_proj` exists; audiocraft always has one, perhaps the identity.
    """

    def __init__(self, lm: LMModel, config: MusicgenConfig, *, has_projection: bool) -> None:
        conditioner = find_conditioner(lm)
        super().__init__(conditioner)
        split_attentions(lm)
        self.config: Any = config
        inner: Any = AliasedModules(lm, {"embed_tokens": "emb", "layer_norm": "out_norm"})
        inner.layers = nn.ModuleList([AliasedModules(each, LAYER) for each in lm.transformer.layers])
        inner.embed_positions = SinusoidalPositions(
            self.config.decoder.max_position_embeddings, self.config.decoder.hidden_size
        )
        decoder: Any = AliasedModules(lm)
        decoder.model = AliasedModules(lm)
        decoder.model.decoder = inner
        decoder.alias("lm_heads", "linears")
        decoder.config = self.config.decoder
        self.decoder = decoder
        if has_projection:
            self.alias("enc_to_dec_proj", "output_proj")

    @property
    def device(self) -> torch.device:
        """Device of the decoder."""
        return next(self.decoder.parameters()).device


# PEFT writes the base model's class into an adapter's config, which shall name transformers' class
MusicgenView.__name__ = "MusicgenForConditionalGeneration"
MusicgenView.__module__ = "transformers.models.musicgen.modeling_musicgen"
