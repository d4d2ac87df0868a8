"""The names of metrics and their meaning.

A metric is an encoder and a distance.  A bare encoder name (`mfcc20`) and `fad/<encoder>` are the Frechet distance,
`mmd/<encoder>` is the kernel distance (KAD), and `clap_score` tells how well a clip fits its prompt's text.  With
`@codec` at its end, a distance is codec-matched: its references are the recordings after the music model's codec.
An encoder is built in, a plug-in, or `command.NAME`, which the spec describes.  `<distance>/<encoder>` is a distance
that is a plug-in, and `mean/<encoder>` the mean of a rating per clip, where higher is better; it needs no references.
`melody-agreement` tells how well a clip follows its melody, `tag-adherence` how much of its prompt a tagger hears.
This module imports no numerics, so that a spec can be checked without numpy.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_bench.plugins import PluginSource, list_plugins

ENCODER_NAMES: tuple[str, ...] = (
    "mfcc20-seed",
    "mfcc20",
    "encodec",
    "musicnn",
    "musicnn-tags",
    "vggish",
    "pann",
    "clap",
    "encodec-24k",
    "tempo",
    "pulse",
    "onsets",
    "loudness",
    "loudness-range",
    "brightness",
    "tonality",
)
TEXT_METRIC_NAMES: tuple[str, ...] = ("clap_score",)
MELODY_AGREEMENT = "melody-agreement"
"""Metric and encoder of clips that follow melodies."""
TAG_ADHERENCE = "tag-adherence"
"""Metric and encoder of clips whose prompts name tags."""
PROMPT_RATINGS = {MELODY_AGREEMENT: "melodies", TAG_ADHERENCE: "the tags of their prompts"}
"""Metrics that rate a run's clips by what these were asked for, and what that is."""
CODEC_MATCHED = "@codec"
COMMAND = re.compile(r"command\.[a-z0-9][a-z0-9-]{0,30}")
"""Encoders that are commands; a spec's `encoders` says how to call them."""
DISTANCE_NAMES: tuple[str, ...] = tuple(
    f"{distance}{name}" for distance in ("", "fad/", "mmd/") for name in ENCODER_NAMES
)
METRIC_NAMES: tuple[str, ...] = (
    *DISTANCE_NAMES,
    *TEXT_METRIC_NAMES,
    *PROMPT_RATINGS,
    *(f"{name}{CODEC_MATCHED}" for name in DISTANCE_NAMES),
)


BUILT_IN_DISTANCES = {"": "frechet", "fad": "frechet", "mmd": "mmd", "mean": "mean"}
"""What stands before the `/` of a metric, and the distance."""
BUILT_IN_STATISTICS = frozenset({*BUILT_IN_DISTANCES.values(), "text"})
"""What metrics can be without a plug-in; none has settings."""
WITHOUT_REFERENCES = ("text", "mean")
"""Statistics that are no distances from recordings; higher is better."""


def list_encoders() -> dict[str, PluginSource]:
    """Return the encoders that are plug-ins, by name; built-in names are not theirs to take."""
    return {name: found for name, found in list_plugins("encoders").items() if name not in ENCODER_NAMES}


def list_distances() -> dict[str, PluginSource]:
    """Return the distances that are plug-ins, by name; built-in names are not theirs to take."""
    taken = {*BUILT_IN_DISTANCES, *BUILT_IN_STATISTICS}
    return {name: found for name, found in list_plugins("distances").items() if name not in taken}


@dataclass(frozen=True)
class Metric:
    """An encoder and a distance.

    Attributes:
        name: as written in the spec; the key in every table.
        encoder: whose vectors are compared.
        distance: `frechet`, `mmd` or a plug-in's name (lower is better); `text` or `mean` (higher is better).
        codec_matched: True if the references are the recordings after the music model's codec.
        settings: of a distance that is a plug-in, as JSON.
    """

    name: str
    encoder: str
    distance: str
    codec_matched: bool = False
    settings: str = "{}"

    @property
    def lower_is_better(self) -> bool:
        """True for distances, False for the text score and for ratings."""
        return self.distance not in WITHOUT_REFERENCES

    @property
    def has_references(self) -> bool:
        """True for distances from recordings."""
        return self.distance not in WITHOUT_REFERENCES


def parse_metric(name: str, distances: Mapping[str, Mapping[str, Any]] | None = None) -> Metric:
    """Return the metric of a name.

    Args:
        name: as in the spec.
        distances: settings of distances that are plug-ins, by name.

    Raises:
        ValueError: there is no such metric; the text names the nearest ones.
    """
    if name == "clap_score":
        return Metric(name, "clap", "text")
    if name in PROMPT_RATINGS:
        return Metric(name, name, "mean")
    plain = name.removesuffix(CODEC_MATCHED)
    stated, slash, encoder = plain.rpartition("/")
    if slash and not (stated and encoder):
        raise ValueError(_describe_half(name, stated, encoder))
    distance = BUILT_IN_DISTANCES.get(stated, stated if stated in list_distances() else None)
    if distance is None or (encoder not in ENCODER_NAMES and not is_described(encoder)):
        raise ValueError(_describe_unknown(name))
    if distance == "mean" and (encoder not in list_encoders() or plain != name):
        raise ValueError(
            f"unknown metric `{name}`; `mean/<encoder>` is for plug-ins that rate single clips, such as "
            "`mean/audiobox-pq`; for other encoders name a distance, such as `mfcc20` or `mmd/mfcc20`"
        )
    settings = json.dumps((distances or {}).get(distance, {}), sort_keys=True)
    return Metric(name, encoder, distance, plain != name, settings)


def is_described(encoder: str) -> bool:
    """Return whether an encoder is a plug-in or a command, which a spec's `encoders` may describe."""
    return COMMAND.fullmatch(encoder) is not None or encoder in list_encoders()


def is_rating(name: str) -> bool:
    """Return whether a metric is the mean of a rating per clip, by its name alone."""
    return name.startswith("mean/")


def is_higher_better(name: str) -> bool:
    """Return whether a larger value of a metric is the better one; distances are better when small."""
    return name in {*TEXT_METRIC_NAMES, *PROMPT_RATINGS} or is_rating(name)


def is_metric(name: str) -> bool:
    """Return whether this version, with the packages that are installed, knows a metric."""
    try:
        parse_metric(name)
    except ValueError:
        return False
    return True


def _describe_half(name: str, stated: str, encoder: str) -> str:
    """Describe a metric with nothing on one side of its slash."""
    before = ", ".join(f"`{known}`" for known in (*filter(None, BUILT_IN_DISTANCES), *list_distances()))
    lack = (
        f"nothing follows the `/`; expected an encoder there, as in `{stated}/<encoder>`"
        if stated
        else f"nothing precedes the `/`; expected a distance there ({before})"
    )
    drop = f", or write `{encoder}` for its Frechet distance" if encoder else ""
    return f"unknown metric `{name}`; {lack}{drop}"


def _describe_unknown(name: str) -> str:
    if name.removesuffix(CODEC_MATCHED) in TEXT_METRIC_NAMES:
        return (
            f"unknown metric `{name}`; clap_score compares clips with the text of their prompt, which does not pass "
            f"through a codec; write `clap_score`, or `clap{CODEC_MATCHED}` for the distance from the recordings"
        )
    wanted = name.strip().lower().replace("_", "-")
    candidates = {known.replace("_", "-"): known for known in METRIC_NAMES}
    near = [candidates[key] for key in difflib.get_close_matches(wanted, candidates, n=2, cutoff=0.6)]
    hint = f"did you mean {' or '.join(f'`{guess}`' for guess in near)}? " if near else ""
    plugins = f", the plug-ins {', '.join(list_encoders())}" if list_encoders() else ""
    distances = "".join(f", {distance}/<encoder>" for distance in list_distances())
    return (
        f"unknown metric `{name}`; {hint}known are the encoders {', '.join(ENCODER_NAMES)}{plugins} "
        f"(the Frechet distance, also as fad/<encoder>), mmd/<encoder>{distances}, each of them with "
        f"{CODEC_MATCHED} at its end, {', '.join(TEXT_METRIC_NAMES)}, {' and '.join(PROMPT_RATINGS)}"
    )
