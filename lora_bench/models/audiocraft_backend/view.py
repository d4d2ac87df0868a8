"""audiocraft's decoder under the names of transformers: the very same modules in another tree.

So targets mean the same, an adapter begins with the same numbers and is saved under the same names, and
what reads weights needs no second version.
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
    """Modules of an owner under other names; one that is replaced here is replaced there.

    Args:
        owner: whose modules they are; it is not itself part of this tree.
        names: name here -> name there.
    """

    def __init__(self, owner: nn.Module, names: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.__dict__["_aliased"] = (owner, {})
        for alias, name in (names or {}).items():
            self.alias(alias, name)

    def alias(self, alias: str, name: str) -> None:
        """Add the owner's module `name` as `alias`; the order of the tree is that of adding."""
        owner, names = self.__dict__["_aliased"]
        self.add_module(alias, cast("nn.Module", getattr(owner, name)))
        names[alias] = name

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        owner, names = self.__dict__.get("_aliased", (None, {}))
        if name in names:
            setattr(owner, names[name], value)


class SinusoidalPositions:
    """The positions, in float32 whatever the decoder's arithmetic is, and rounded as transformers rounds them.

    audiocraft computes them in the decoder's arithmetic: in bfloat16 they are off by more than 1 from step 500
    on.  Its order of operations differs by up to 6e-5 even in float32, enough to draw another code now and
    then; with one table, the same noise gives the same clip whichever library runs the model.
    """

    def __init__(self, num_positions: int, embedding_dim: int) -> None:
        self.num_positions = num_positions
        self.embedding_dim = embedding_dim

    def get_embedding(self, num_positions: int, embedding_dim: int) -> Tensor:
        """Float32 [num_positions, embedding_dim]."""
        return MusicgenSinusoidalPositionalEmbedding.get_embedding(num_positions, embedding_dim)


class MusicgenView(AliasedModules):
    """The decoder and the text projection of audiocraft's model.

    Args:
        lm: audiocraft's language model; its attentions are split, if they are not yet.
        config: transformers' config of the model.
        has_projection: whether `enc_to_dec_proj` is there; audiocraft always has one, maybe the identity.
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
        """Where the decoder is."""
        return next(self.decoder.parameters()).device


# PEFT writes the base model's class into an adapter's config: it is an adapter of transformers' class
MusicgenView.__name__ = "MusicgenForConditionalGeneration"
MusicgenView.__module__ = "transformers.models.musicgen.modeling_musicgen"
