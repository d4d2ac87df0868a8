"""Draw a code from logits and one uniform number by the inverse of the cumulative distribution.

Codes are summed in their own order, not sorted by probability, so that a small change of the logits only moves the
borders between codes, and the same number usually gives the same code.
"""

from __future__ import annotations

import torch
from torch import Tensor


def code_probabilities(logits: Tensor, *, temperature: float, top_k: int | None) -> Tensor:
    """Return probabilities float32 [..., V] after temperature and top-k; ties with the k-th code stay.

    Args:
        logits: [..., V].
        temperature: above 0.
        top_k: codes that may be drawn; None is all of them.
    """
    scaled = logits.float() / temperature
    if top_k is not None and top_k < scaled.shape[-1]:
        threshold = scaled.topk(top_k, dim=-1).values[..., -1:]
        scaled = scaled.masked_fill(scaled < threshold, -torch.inf)
    return scaled.softmax(dim=-1)


def sample_codes(logits: Tensor, uniform: Tensor, *, temperature: float, top_k: int | None) -> Tensor:
    """Draw codes.

    Args:
        logits: [..., V].
        uniform: float64 [...], strictly between 0 and 1.
        temperature: see `code_probabilities`.
        top_k: see `code_probabilities`; 1 is greedy and needs no noise.

    Returns:
        int64 [...].
    """
    if top_k == 1:
        return logits.argmax(dim=-1)
    probabilities = code_probabilities(logits, temperature=temperature, top_k=top_k)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[..., -1:]
    # rounding must not raise the target to the total, beyond the last code
    target = torch.minimum(uniform[..., None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, target, right=True).squeeze(-1)
