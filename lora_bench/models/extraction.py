"""Extract a MusicGen decoder's weights as plain tensors that include the adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast, overload

import torch
from torch import nn
from transformers.activations import ACT2FN

from lora_bench.models.adapter_kinds import unwrap
from lora_bench.models.linears import PackedLinear, pack_linears
from lora_bench.models.lora import read_linear
from lora_bench.models.records import DecoderLayerWeights, DecoderWeights, LayerNormWeights

if TYPE_CHECKING:
    from transformers import MusicgenForConditionalGeneration


def _read_norm(module: nn.Module) -> LayerNormWeights:
    norm = cast("nn.LayerNorm", unwrap(module))
    return LayerNormWeights(norm.weight.detach(), norm.bias.detach(), norm.eps)


def _read_layer(layer: Any) -> DecoderLayerWeights:
    own = layer.self_attn
    cross_norm, cross_q, cross_kv, cross_out = _read_cross_attention(layer)
    return DecoderLayerWeights(
        self_norm=_read_norm(layer.self_attn_layer_norm),
        self_qkv=pack_linears([read_linear(part) for part in (own.q_proj, own.k_proj, own.v_proj)]),
        self_out=pack_linears([read_linear(own.out_proj)]),
        cross_norm=cross_norm,
        cross_q=cross_q,
        cross_kv=cross_kv,
        cross_out=cross_out,
        ffn_norm=_read_norm(layer.final_layer_norm),
        ffn_in=pack_linears([read_linear(layer.fc1)]),
        ffn_out=pack_linears([read_linear(layer.fc2)]),
    )


def _read_cross_attention(
    layer: Any,
) -> tuple[LayerNormWeights, PackedLinear, PackedLinear, PackedLinear]:
    """Return norm, queries, keys with values, and output; empty ones for a layer without cross-attention."""
    if not hasattr(layer, "encoder_attn"):
        nothing = PackedLinear(layer.fc1.weight.new_empty(0, layer.embed_dim))
        return _read_norm(layer.final_layer_norm), nothing, nothing, nothing
    text = layer.encoder_attn
    return (
        _read_norm(layer.encoder_attn_layer_norm),
        pack_linears([read_linear(text.q_proj)]),
        pack_linears([read_linear(text.k_proj), read_linear(text.v_proj)]),
        pack_linears([read_linear(text.out_proj)]),
    )


class _LayersOnDemand(Sequence[DecoderLayerWeights]):
    """A sequence that reads a layer at each access."""

    def __init__(self, layers: Sequence[Any]) -> None:
        self._layers = layers

    def __len__(self) -> int:
        return len(self._layers)

    @overload
    def __getitem__(self, index: int) -> DecoderLayerWeights: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[DecoderLayerWeights]: ...

    @torch.no_grad()
    def __getitem__(self, index: int | slice) -> DecoderLayerWeights | Sequence[DecoderLayerWeights]:
        if isinstance(index, slice):
            return _LayersOnDemand(self._layers[index])
        return _read_layer(self._layers[index])


@torch.no_grad()
def extract_decoder_weights(network: MusicgenForConditionalGeneration, *, start_id: int) -> DecoderWeights:
    """Extract the weights for decoding.

    Packed matrices and layers with an adapter are copies; all other tensors are shared with `network`.
    """
    causal_lm = cast("Any", network.decoder)
    decoder = causal_lm.model.decoder
    table = decoder.embed_positions
    projection = getattr(network, "enc_to_dec_proj", None)
    return DecoderWeights(
        embeddings=torch.stack(
            [cast("nn.Embedding", unwrap(each)).weight.detach() for each in decoder.embed_tokens]
        ),
        # from the formula: the stored table has been rounded to the decoder's dtype
        positions=table.get_embedding(table.num_positions, table.embedding_dim).float().to(network.device),
        text_projection=None if projection is None else pack_linears([read_linear(projection)]),
        layers=_LayersOnDemand(decoder.layers),
        norm=_read_norm(decoder.layer_norm),
        heads=pack_linears([read_linear(head) for head in causal_lm.lm_heads]),
        n_heads=causal_lm.config.num_attention_heads,
        activation=ACT2FN[causal_lm.config.activation_function],
        start_id=start_id,
    )
