"""Rename audiocraft's codec weights to those of transformers' `EncodecModel`."""

import re

from torch import Tensor


def rename_weight(name: str) -> str:
    """The name in transformers of one of audiocraft's codec weights."""
    new = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    new = re.sub(r"\.(conv|convtr)\.\1\.", ".conv.", new)
    new = new.replace("quantizer.vq.layers.", "quantizer.layers.").replace("._codebook.", ".codebook.")
    return new.replace(".weight_g", ".parametrizations.weight.original0").replace(
        ".weight_v", ".parametrizations.weight.original1"
    )


def restore_codec(state: dict[str, Tensor], template: dict[str, Tensor]) -> dict[str, Tensor]:
    """The way back, to go on training: transformers' weights under audiocraft's names.

    Args:
        state: Of an `EncodecModel`.
        template: Of encoder, decoder and quantizer of audiocraft.
    """
    return {name: state[rename_weight(name)].detach().clone() for name in template}


def convert_codec(state: dict[str, Tensor], template: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename; every weight of the template must be found, in its shape.

    Args:
        state: From encoder, decoder and quantizer of audiocraft.
        template: The `EncodecModel`'s state dict.

    Raises:
        KeyError: A weight of the template has no source.
        ValueError: A shape differs.
    """
    renamed = {rename_weight(name): value for name, value in state.items()}
    lost = sorted(set(template) - set(renamed))
    if lost:
        raise KeyError(
            f"no audiocraft weight for {lost[:4]} ({len(lost)} in all); there is e.g. {sorted(renamed)[:4]}"
        )
    for name, value in template.items():
        if renamed[name].shape != value.shape:
            raise ValueError(f"{name}: shape {tuple(renamed[name].shape)} became {tuple(value.shape)}")
    return {name: renamed[name].detach().clone() for name in template}
