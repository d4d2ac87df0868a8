"""Names of weights as older versions of transformers wrote them."""

from __future__ import annotations

import torch

OLDER_NAMES = {
    ".parametrizations.weight.original0": ".weight_g",
    ".parametrizations.weight.original1": ".weight_v",
}


def give_older_names(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed: dict[str, torch.Tensor] = {}
    for name, tensor in tensors.items():
        older = name
        for new, old in OLDER_NAMES.items():
            older = older.replace(new, old)
        renamed[older] = tensor
    assert any(name.endswith(".weight_g") for name in renamed)
    return renamed
