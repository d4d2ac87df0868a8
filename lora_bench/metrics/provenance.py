"""Where the vectors of a score came from, both sides in one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_bench.errors import ScoreError

Provenance = dict[str, str | int | float]

# Vectors of different encoders or weights live in different spaces.
MUST_AGREE = ("encoder", "weights", "weights_hash", "scale")


def merge_provenance(
    generated: Sequence[Mapping[str, str | int | float]], reference: Mapping[str, str | int | float]
) -> Provenance:
    """One record of both sides: what agrees once, what differs under `generated_...` and `reference_...`.

    Raises:
        ScoreError: the sides come from different encoders or weights.
    """
    merged: Provenance = {}
    for key in dict.fromkeys([*(key for part in generated for key in part), *reference]):
        ours = list(dict.fromkeys(part[key] for part in generated if key in part))
        every = [*ours, *([reference[key]] if key in reference and reference[key] not in ours else [])]
        if len(every) == 1:
            merged[key] = every[0]
            continue
        if key in MUST_AGREE:
            found = " and ".join(str(value) for value in every)
            raise ScoreError(
                f"embeddings with different `{key}` ({found}) cannot be compared; embed both sides with the "
                "same encoder"
            )
        merged[f"generated_{key}"] = ours[0] if len(ours) == 1 else ", ".join(str(value) for value in ours)
        if key in reference:
            merged[f"reference_{key}"] = reference[key]
    return merged
