"""audiocraft's attention with real q, k and v modules instead of one packed matrix.

audiocraft multiplies by a bare parameter, `in_proj_weight`, which PEFT cannot adapt part by part.  The class of each
attention is replaced by one with the same numbers in three linear layers; the streaming cache, which audiocraft uses
to generate, still works.  A text mask excludes padding from cross-attention, as in transformers; audiocraft itself
attends to the zeros of padding, so that a caption's loss would depend on the length of the other captions.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from audiocraft.modules.transformer import StreamingMultiheadAttention
from torch import Tensor, nn
from torch.nn import functional as F


class SplitAttention(StreamingMultiheadAttention):
    """audiocraft's attention with its projections in `q_proj`, `k_proj`, `v_proj`, `out_proj`."""

    k_proj: nn.Module
    v_proj: nn.Module
    q_proj: nn.Module
    text_mask: Tensor | None
    """Bool [B, 1, 1, L], False at padding; set during a forward pass, None otherwise."""

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """Attend with queries [B, T, D] to keys and values [B, L, D]; only `text_mask` masks.

        Raises:
            ValueError: the caller passes a mask or wants weights.
        """
        if key_padding_mask is not None or attn_mask is not None or need_weights or is_causal:
            raise ValueError("split attention takes no masks and returns no weights")
        del average_attn_weights  # nothing is averaged
        q, k, v = (
            part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for part in (self.q_proj(query), self.k_proj(key), self.v_proj(value))
        )  # [B, heads, T, D / heads], the layout of the parent's cache
        n_new = q.shape[2]
        k, v = cast("tuple[Tensor, Tensor]", self._complete_kv(k, v))
        if self.causal and n_new not in (1, k.shape[2]):
            raise ValueError("split attention continues from a cache one step at a time")
        if self.attention_as_float32:
            q, k, v = q.float(), k.float(), v.float()
        x = F.scaled_dot_product_attention(
            q, k, v, attn_mask=self.text_mask, is_causal=self.causal and n_new > 1
        )
        return self.out_proj(x.to(query.dtype).transpose(1, 2).flatten(2)), None


def split_attentions(model: nn.Module) -> int:
    """Replace every packed attention in `model`, in place.

    Returns:
        The number of replaced modules.
    """
    packed = [m for m in model.modules() if type(m) is StreamingMultiheadAttention]
    for module in packed:
        _split(module)
    return len(packed)


@torch.no_grad()
def _split(module: StreamingMultiheadAttention) -> None:
    has_bias = cast("Any", module).in_proj_bias is not None
    if has_bias or not module.custom or module.qk_layer_norm or module.rope is not None:
        raise ValueError(
            "only a bias-free attention without rotary positions or norms of its own can be split"
        )
    weight, out = module.in_proj_weight, module.out_proj
    del module.in_proj_weight
    del module.out_proj
    # in the order of transformers' modules
    parts = dict(zip(("q_proj", "k_proj", "v_proj"), weight.chunk(3), strict=True))
    for name in ("k_proj", "v_proj", "q_proj"):
        linear = nn.Linear(weight.shape[1], weight.shape[1], bias=False, device="meta")
        linear.weight = nn.Parameter(parts[name].detach(), requires_grad=False)
        module.add_module(name, linear)
    module.add_module("out_proj", out)
    module.memory_efficient = True  # says that the cache is laid out [B, heads, T, D / heads]
    cast("Any", module).text_mask = None
    cast("Any", module).__class__ = SplitAttention
