"""Where the vectors of a score came from, both sides in one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lora_bench.errors import ScoreError

Provenance = dict[str, str | int | float]

# Vectors of different encoders or weights live in different spaces.  Weights are the same if their contents are;
# name and path decide only where there is no hash.
MUST_AGREE = ("encoder", "weights", "weights_hash", "scale")


def merge_provenance(
    generated: Sequence[Mapping[str, str | int | float]], reference: Mapping[str, str | int | float]
) -> Provenance:
    """One record of both sides: what agrees once, what differs under `generated_...` and `reference_...`.

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


# What every number must say of itself; one of the keys of each line is enough.
REQUIRED: dict[str, tuple[str, ...]] = {
    "encoder": ("encoder",),
    "weights": ("weights_hash", "weights"),
    "windowing": ("window_samples", "window_s", "frame_rate_hz"),
    "resampler": ("resampler",),
    "estimator": ("estimator",),
    "interval method": ("interval",),
}
REQUIRED_COUNTS = ("n_generated", "n_reference", "dim")
_SIDES = ("generated", "reference")
_WINDOW_KEYS = ("window_samples", "window_s", "hop_samples", "window_hop_s", "frame_rate_hz")


def find_gaps(record: Mapping[str, object], counts: Sequence[str] = REQUIRED_COUNTS) -> list[str]:
    """What a score, floor or comparison fails to say of itself; empty if it says all.

    Args:
        record: in JSON form, with `provenance`.
        counts: numbers that must stand in the record or in its provenance.
    """
    found = record.get("provenance")
    about: Mapping[object, object] = found if isinstance(found, Mapping) else {}
    gaps = [
        name
        for name, keys in REQUIRED.items()
        if not any(about.get(key) or any(about.get(f"{side}_{key}") for side in _SIDES) for key in keys)
    ]
    return gaps + [name for name in counts if record.get(name) is None and about.get(name) is None]


def describe_windowing(provenance: Mapping[str, object]) -> str:
    """Window and hop in short, as the encoder states them."""
    return ", ".join(f"{key} {provenance[key]}" for key in _WINDOW_KEYS if key in provenance)
