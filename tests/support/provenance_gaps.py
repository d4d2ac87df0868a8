"""Check that a score, reference level or comparison says how it was computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

# One of the keys of each line is enough.
REQUIRED: dict[str, tuple[str, ...]] = {
    "encoder": ("encoder",),
    "weights": ("weights_hash", "weights"),
    "windowing": ("window_samples", "window_s", "frame_rate_hz"),
    "resampler": ("resampler",),
    "estimator": ("estimator",),
    "interval method": ("interval",),
}
REQUIRED_COUNTS = ("n_generated", "n_reference", "dim")


def find_gaps(record: Mapping[str, object], counts: Sequence[str] = REQUIRED_COUNTS) -> list[str]:
    """Name what a record does not say about itself.

    Args:
        record: in JSON form, with `provenance`.
        counts: numbers that must be in the record or in its provenance.
    """
    found = record.get("provenance")
    about: Mapping[object, object] = found if isinstance(found, Mapping) else {}
    gaps = [
        name
        for name, keys in REQUIRED.items()
        if not any(
            about.get(key) or any(about.get(f"{side}_{key}") for side in ("generated", "reference"))
            for key in keys
        )
    ]
    return gaps + [name for name in counts if record.get(name) is None and about.get(name) is None]
