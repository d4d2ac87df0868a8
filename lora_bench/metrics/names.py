"""The names of metrics and their meaning.

A metric is an encoder and a distance.  A bare encoder name (`mfcc20`) and `fad/<encoder>` are the Frechet distance,
`mmd/<encoder>` is the kernel distance (KAD), and `clap_score` tells how well a clip fits its prompt's text.  With
`@codec` at its end, a distance is codec-matched: its references are the recordings after the music model's codec.
An encoder is built in, offered by another installed package, or `command.NAME`, which the spec describes.
This module imports no numerics, so that a spec can be checked without numpy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from typing import Any, Literal

Distance = Literal["frechet", "mmd", "text"]

ENCODER_NAMES: tuple[str, ...] = (
    "mfcc20-seed",
    "mfcc20",
    "encodec",
    "musicnn",
    "vggish",
    "pann",
    "clap",
    "encodec-24k",
    "tempo",
    "pulse",
    "onsets",
    "loudness",
    "brightness",
    "tonality",
)
TEXT_METRIC_NAMES: tuple[str, ...] = ("clap_score",)
CODEC_MATCHED = "@codec"
COMMAND = re.compile(r"command\.[a-z0-9][a-z0-9-]{0,30}")
"""Encoders that are commands; a spec's `encoders` says how to call them."""
DISTANCE_NAMES: tuple[str, ...] = tuple(
    f"{distance}{name}" for distance in ("", "fad/", "mmd/") for name in ENCODER_NAMES
)
METRIC_NAMES: tuple[str, ...] = (
    *DISTANCE_NAMES,
    *TEXT_METRIC_NAMES,
    *(f"{name}{CODEC_MATCHED}" for name in DISTANCE_NAMES),
)


PLUGIN_GROUP = "lora_bench.encoders"
"""Group of entry points of encoders."""
_PLUGIN_NAME = re.compile(r"[a-z][a-z0-9.-]{0,40}")


@dataclass(frozen=True)
class EncoderSource:
    """An encoder that keeps the contract of plug-ins.

    Attributes:
        package: name and version of who offers it, for provenance and errors.
        load: imports it and returns its class.
    """

    package: str
    load: Callable[[], Any]


@cache
def list_plugins() -> dict[str, EncoderSource]:
    """Return the encoders that other installed packages offer, by name; of two of one name, the first package's.

    Built-in names are not theirs to take.  Nothing of the packages is imported.
    """
    found: dict[str, EncoderSource] = {}
    points = entry_points(group=PLUGIN_GROUP)
    for point in sorted(points, key=lambda item: (item.name, item.dist.name if item.dist else "")):
        package = f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
        if _PLUGIN_NAME.fullmatch(point.name) and point.name not in ENCODER_NAMES:
            found.setdefault(point.name, EncoderSource(package, point.load))
    return found


@dataclass(frozen=True)
class Metric:
    """An encoder and a distance.

    Attributes:
        name: as written in the spec; the key in every table.
        encoder: whose vectors are compared.
        distance: `frechet` (lower is better), `mmd` (lower is better), `text` (higher is better).
        codec_matched: True if the references are the recordings after the music model's codec.
    """

    name: str
    encoder: str
    distance: Distance
    codec_matched: bool = False

    @property
    def lower_is_better(self) -> bool:
        """True for distances, False for the text score."""
        return self.distance != "text"


def parse_metric(name: str) -> Metric:
    """Return the metric of a name.

    Raises:
        ValueError: there is no such metric; the text names the nearest ones.
    """
    if name == "clap_score":
        return Metric(name, "clap", "text")
    plain = name.removesuffix(CODEC_MATCHED)
    distance: Distance = "mmd" if plain.startswith("mmd/") else "frechet"
    encoder = re.sub("^(mmd|fad)/", "", plain)
    if encoder not in ENCODER_NAMES and not is_described(encoder):
        raise ValueError(_describe_unknown(name))
    return Metric(name, encoder, distance, plain != name)


def is_described(encoder: str) -> bool:
    """Return whether an encoder is a plug-in or a command, which a spec's `encoders` may describe."""
    return COMMAND.fullmatch(encoder) is not None or encoder in list_plugins()


def is_metric(name: str) -> bool:
    """Return whether this version, with the packages that are installed, knows a metric."""
    try:
        parse_metric(name)
    except ValueError:
        return False
    return True


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
    plugins = f", the plug-ins {', '.join(list_plugins())}" if list_plugins() else ""
    return (
        f"unknown metric `{name}`; {hint}known are the encoders {', '.join(ENCODER_NAMES)}{plugins} "
        f"(the Frechet distance, also as fad/<encoder>), mmd/<encoder>, each of them with {CODEC_MATCHED} at its end, "
        f"and {', '.join(TEXT_METRIC_NAMES)}"
    )
