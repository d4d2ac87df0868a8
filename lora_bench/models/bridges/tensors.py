"""Rename weights between transformers and audiocraft, exactly and both ways.

Decoder weights differ in names and in one layout: audiocraft packs queries, keys and values, in this order, into one
`in_proj_weight` [3 D, D].
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from lora_bench.errors import ModelError

State = dict[str, Tensor]

# transformers' name of a decoder module -> audiocraft's
MODULES = (
    ("decoder.model.decoder.embed_tokens.", "emb."),
    ("decoder.model.decoder.layer_norm.", "out_norm."),
    ("decoder.model.decoder.layers.", "transformer.layers."),
    ("decoder.lm_heads.", "linears."),
    ("enc_to_dec_proj.", "condition_provider.conditioners.description.output_proj."),
)
IN_LAYER = (
    (".self_attn_layer_norm.", ".norm1."),
    (".encoder_attn_layer_norm.", ".norm_cross."),
    (".final_layer_norm.", ".norm2."),
    (".encoder_attn.", ".cross_attention."),
    (".fc1.", ".linear1."),
    (".fc2.", ".linear2."),
)
PACKED = ".in_proj_weight"
PARTS = (".q_proj.weight", ".k_proj.weight", ".v_proj.weight")  # in the order of packing
NOT_STORED = re.compile(r"\.embed_positions\.")  # computed, not learnt


def name_in_audiocraft(name: str) -> str:
    """Return audiocraft's name (with split attention) for one of transformers' decoder names.

    Raises:
        KeyError: it is not one.
    """
    return _rename(name, MODULES, IN_LAYER)


def name_in_transformers(name: str) -> str:
    """Return transformers' name for one of audiocraft's decoder names (with split attention).

    Raises:
        KeyError: it is not one.
    """
    modules, in_layer = ([(ours, theirs) for theirs, ours in pairs] for pairs in (MODULES, IN_LAYER))
    return _rename(name, modules, in_layer)


def _rename(name: str, modules: Sequence[tuple[str, str]], in_layer: Sequence[tuple[str, str]]) -> str:
    dotted = f"{name}."  # lets modules match like weights
    for old, new in modules:
        if dotted.startswith(old):
            renamed = new + dotted.removeprefix(old)
            for before, after in in_layer:
                renamed = renamed.replace(before, after)
            return renamed.removesuffix(".")
    raise KeyError(name)


def decoder_to_audiocraft(state: Mapping[str, Tensor], *, is_packed: bool = True) -> State:
    """Rename a decoder's weights for audiocraft's `LMModel`.

    Args:
        state: `decoder.*` and `enc_to_dec_proj.*` of transformers.
        is_packed: pack attention like audiocraft; else it stays split, and tensors are not copied.

    Raises:
        ModelError: audiocraft has no place for a weight.
    """
    renamed: State = {}
    for name, tensor in state.items():
        if NOT_STORED.search(name):
            continue
        try:
            renamed[name_in_audiocraft(name)] = tensor
        except KeyError as error:
            raise ModelError(
                f"{name}: audiocraft has no place for this weight, expected those of a MusicGen decoder"
            ) from error
    if not is_packed:
        return renamed
    packed: State = {}
    for name, tensor in renamed.items():
        if name.endswith(PARTS[0]):
            stem = name.removesuffix(PARTS[0])
            packed[stem + PACKED] = torch.cat([renamed[stem + each] for each in PARTS])
        elif not name.endswith(PARTS):
            packed[name] = tensor
    return packed


def decoder_to_transformers(state: Mapping[str, Tensor]) -> State:
    """Rename the weights of audiocraft's `LMModel` for transformers.

    Raises:
        ModelError: a text-conditioned MusicGen does not have such a weight.
    """
    renamed: State = {}
    for name, tensor in state.items():
        plain = name.replace(".mha.", ".")  # from torch's own attention, which audiocraft can use
        try:
            target = name_in_transformers(plain)
        except KeyError as error:
            raise ModelError(
                f"{name}: transformers has no place for this weight, expected those of audiocraft's LMModel "
                "with a text conditioner"
            ) from error
        if target.endswith(PACKED):
            stem = target.removesuffix(PACKED)
            for part, piece in zip(PARTS, tensor.chunk(3), strict=True):
                renamed[stem + part] = piece
        else:
            renamed[target] = tensor
    return renamed


def codec_to_transformers(state: Mapping[str, Tensor]) -> State:
    """Rename audiocraft's EnCodec weights for transformers' `EncodecModel`."""
    return {_codec_name_in_transformers(name): tensor for name, tensor in state.items()}


def _codec_name_in_transformers(name: str) -> str:
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"\.(conv|convtr)\.\1\.", ".conv.", name)
    name = name.replace("quantizer.vq.layers.", "quantizer.layers.").replace("._codebook.", ".codebook.")
    return name.replace(".weight_g", ".parametrizations.weight.original0").replace(
        ".weight_v", ".parametrizations.weight.original1"
    )


def codec_to_audiocraft(state: Mapping[str, Tensor]) -> State:
    """Rename the weights of transformers' `EncodecModel` for audiocraft."""
    last = max(int(found[1]) for name in state if (found := re.match(r"decoder\.layers\.(\d+)\.", name)))
    return {_codec_name_in_audiocraft(name, last): tensor for name, tensor in state.items()}


def _codec_name_in_audiocraft(name: str, last: int) -> str:
    top = re.match(r"decoder\.layers\.(\d+)\.conv\.", name)
    # the decoder's convolutions are transposed, except the first, the last, and those inside blocks
    is_transposed = top is not None and int(top[1]) not in (0, last)
    kind = "convtr" if is_transposed else "conv"
    name = re.sub(r"\.conv\.", f".{kind}.{kind}.", name)
    name = re.sub(r"^(encoder|decoder)\.layers\.", r"\1.model.", name)
    name = name.replace("quantizer.layers.", "quantizer.vq.layers.").replace(".codebook.", "._codebook.")
    return name.replace(".parametrizations.weight.original0", ".weight_g").replace(
        ".parametrizations.weight.original1", ".weight_v"
    )


def is_identity(state: Mapping[str, Tensor], stem: str = "enc_to_dec_proj") -> bool:
    """Return whether a text projection is the identity, like one that was added for audiocraft."""
    weight, bias = state[f"{stem}.weight"], state[f"{stem}.bias"]
    square = weight.shape[0] == weight.shape[1]
    return square and bool(torch.equal(weight, torch.eye(len(weight)).to(weight))) and not bool(bias.any())
