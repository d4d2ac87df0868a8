"""The JSON Schema and the validator accept the same names of metrics."""

from __future__ import annotations

import functools
from typing import Any

import jsonschema
import pytest

from lora_bench.metrics.names import ENCODER_NAMES, METRIC_NAMES, is_metric, list_distances, list_encoders
from lora_bench.plugins.settings import describe_settings
from lora_bench.spec.json_schema import build_json_schema

ENCODERS = ("mfcc20", "mert", "muq", "passt", "audiobox-pq", "command.mine", "clap_score", "nothing", "")
DISTANCES = (
    "",
    "fad/",
    "mmd/",
    "mean/",
    "mad/",
    "label-kl/",
    "text/",
    "frechet/",
    "nothing/",
    "/",
    "mmd/mmd/",
)
NAMES = tuple(
    f"{d}{e}{end}" for d in DISTANCES for e in ENCODERS for end in ("", "@codec", "@", "@codec@codec")
)
RATINGS = tuple(f"mean/{name}" for name in list_encoders())
PLUGINS = tuple(
    f"{d}/{e}" for d in list_distances() for e in (*ENCODER_NAMES, *list_encoders(), "command.mine")
)


@functools.cache
def schema_of_names() -> Any:
    items = build_json_schema(describe_settings(own_only=True))["properties"]["metrics"]["items"]
    return jsonschema.Draft202012Validator(items)


@pytest.mark.parametrize("name", [*METRIC_NAMES, *RATINGS, *PLUGINS])
def test_every_form_is_accepted_by_both(name: str) -> None:
    assert is_metric(name)
    assert schema_of_names().is_valid(name)


def test_the_schema_accepts_what_the_validator_accepts_and_nothing_else() -> None:
    accepted = {name for name in NAMES if is_metric(name)}
    assert {name for name in NAMES if schema_of_names().is_valid(name)} == accepted
    assert {"mean/mert", "mad/command.mine@codec", "mmd/passt", "fad/command.mine"} <= accepted
    assert len(accepted) < len(NAMES) / 3
