"""Extract a MusicGen decoder's weights as plain tensors that include the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast, overload

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN

from lora_bench.models.adapter_kinds import find_base, unwrap
from lora_bench.models.adapter_strength import blend
from lora_bench.models.linears import PackedLinear, pack_linears
from lora_bench.models.lora import read_linear
from lora_bench.models.records import DecoderLayerWeights, DecoderWeights, LayerNormWeights

if TYPE_CHECKING:
    from transformers import MusicgenForConditionalGeneration


def _read_norm(module: nn.Module, strength: float) -> LayerNormWeights:
    base, norm = find_base(module), cast("nn.LayerNorm", unwrap(module))
    weight = blend(base.weight.detach(), norm.weight.detach(), strength)
    return LayerNormWeights(weight, blend(base.bias.detach(), norm.bias.detach(), strength), norm.eps)


def _read_embedding(module: nn.Module, strength: float) -> Tensor:
    table = cast("nn.Embedding", unwrap(module))
    return blend(find_base(module).weight.detach(), table.weight.detach(), strength)


def _read_layer(layer: Any, strength: float) -> DecoderLayerWeights:
    own = layer.self_attn
    read, read_norm = partial(read_linear, strength=strength), partial(_read_norm, strength=strength)
    cross_norm, cross_q, cross_kv, cross_out = _read_cross_attention(layer, strength)
    return DecoderLayerWeights(
        self_norm=read_norm(layer.self_attn_layer_norm),
        self_qkv=pack_linears([read(part) for part in (own.q_proj, own.k_proj, own.v_proj)]),
        self_out=pack_linears([read(own.out_proj)]),
        cross_norm=cross_norm,
        cross_q=cross_q,
        cross_kv=cross_kv,
        cross_out=cross_out,
        ffn_norm=read_norm(layer.final_layer_norm),
        ffn_in=pack_linears([read(layer.fc1)]),
        ffn_out=pack_linears([read(layer.fc2)]),
    )


def _read_cross_attention(
    layer: Any, strength: float
) -> tuple[LayerNormWeights, PackedLinear, PackedLinear, PackedLinear]:
    """Return norm, queries, keys with values, and output; empty ones for a layer without cross-attention."""
    read, read_norm = partial(read_linear, strength=strength), partial(_read_norm, strength=strength)
    if not hasattr(layer, "encoder_attn"):
        nothing = PackedLinear(layer.fc1.weight.new_empty(0, layer.embed_dim))
        return read_norm(layer.final_layer_norm), nothing, nothing, nothing
    text = layer.encoder_attn
    return (
        read_norm(layer.encoder_attn_layer_norm),
        pack_linears([read(text.q_proj)]),
        pack_linears([read(text.k_proj), read(text.v_proj)]),
        pack_linears([read(text.out_proj)]),
    )


class _LayersOnDemand(Sequence[DecoderLayerWeights]):
    """A sequence that reads a layer at each access."""

    def __init__(self, layers: Sequence[Any], strength: float) -> None:
        self._layers = layers
        self._strength = strength

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, index: int) -> DecoderLayerWeights: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[DecoderLayerWeights]: ...

    @torch.no_grad()
    def __getitem__(self, index: int | slice) -> DecoderLayerWeights | Sequence[DecoderLayerWeights]:
        if isinstance(index, slice):
            return _LayersOnDemand(self._layers[index], self._strength)
        return _read_layer(self._layers[index], self._strength)


@torch.no_grad()
def extract_decoder_weights(
    network: MusicgenForConditionalGeneration, *, start_id: int, strength: float = 1.0
) -> DecoderWeights:
    """Extract the weights for decoding, with the adapter at some strength.

    Packed matrices and layers with an adapter are copies; all other tensors are shared with `network`.
    """
    causal_lm = cast("Any", network.decoder)
    decoder = causal_lm.model.decoder
    table = decoder.embed_positions
    projection = getattr(network, "enc_to_dec_proj", None)
    return DecoderWeights(
        embeddings=torch.stack([_read_embedding(each, strength) for each in decoder.embed_tokens]),
        # from the formula: the stored table has been rounded to the decoder's dtype
        positions=table.get_embedding(table.num_positions, table.embedding_dim).float().to(network.device),
        text_projection=None if projection is None else pack_linears([read_linear(projection, strength)]),
        layers=_LayersOnDemand(decoder.layers, strength),
        norm=_read_norm(decoder.layer_norm, strength),
        heads=pack_linears([read_linear(head, strength) for head in causal_lm.lm_heads]),
        n_heads=causal_lm.config.num_attention_heads,
        activation=ACT2FN[causal_lm.config.activation_function],
        start_id=start_id,
    )
