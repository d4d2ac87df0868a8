"""Provenance of a score: where the vectors of both sides came from, in one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_bench.errors import ScoreError

Provenance = dict[str, str | int | float]

# Vectors of different encoders or weights lie in different spaces.  Weights are equal if their contents are; name and
# path decide only where there is no hash.
MUST_AGREE = ("encoder", "weights", "weights_hash", "scale", "settings")
_WINDOW_KEYS = ("window_samples", "window_s", "hop_samples", "window_hop_s", "frame_rate_hz")


def merge_provenance(
    generated: Sequence[Mapping[str, str | int | float]], reference: Mapping[str, str | int | float]
) -> Provenance:
    """Merge both sides: what agrees appears once, what differs as `generated_...` and `reference_...`.

    Raises:
        ScoreError: the sides come from different encoders or weights.
    """
    merged: Provenance = {}
    is_hashed = all("weights_hash" in part for part in (*generated, reference))
    for key in dict.fromkeys([*(key for part in generated for key in part), *reference]):
        ours = list(dict.fromkeys(part[key] for part in generated if key in part))
        every = [*ours, *([reference[key]] if key in reference and reference[key] not in ours else [])]
        if len(every) == 1:
            merged[key] = every[0]
            continue
        if key in MUST_AGREE and not (key == "weights" and is_hashed):
            found = " and ".join(str(value) for value in every)
            raise ScoreError(
                f"embeddings with different `{key}` ({found}) cannot be compared; embed both sides with the "
                "same encoder"
            )
        merged[f"generated_{key}"] = ours[0] if len(ours) == 1 else ", ".join(str(value) for value in ours)
        if key in reference:
            merged[f"reference_{key}"] = reference[key]
    return merged


def describe_windowing(provenance: Mapping[str, object]) -> str:
    """Return window and hop in short, as the encoder states them."""
    return ", ".join(f"{key} {provenance[key]}" for key in _WINDOW_KEYS if key in provenance)
