"""The contract of each kind is in docs/plugins.md: code points there, and agrees with the defaults that it states."""

from __future__ import annotations

import re
from typing import Any

import pytest
from support import ROOT

from lora_bench.encoders import plugin
from lora_bench.metrics import distance_plugin
from lora_bench.plugins import KINDS
from lora_bench.plugins.settings import check_settings
from lora_bench.stages.dataset import captioner, source_plugin

PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
SECTIONS = {name: text for name, _, text in (part.partition("\n") for part in PAGE.split("\n## ")[1:])}
PROTOCOLS: tuple[tuple[str, Any, tuple[str, ...]], ...] = (
    ("An encoder", plugin.Plugin, ("embed", "sample_rate_hz", "dim", "batch_s", "device")),
    ("A distance", distance_plugin.DistancePlugin, ("measure", "prepare", "is_biased", "max_left_out")),
    ("A captioner", captioner.CaptionerPlugin, ("caption", "sample_rate_hz", "excerpt_s", "batch_s")),
    ("A source", source_plugin.TrackSource, ("tracks", "name", "audio", "sample_rate_hz", "file")),
)


@pytest.mark.parametrize(("section", "protocol", "names"), PROTOCOLS)
def test_a_protocol_points_to_its_section_which_names_every_part(
    section: str, protocol: Any, names: tuple[str, ...]
) -> None:
    anchor = section.lower().replace(" ", "-")
    assert f"`docs/plugins.md#{anchor}`" in protocol.__doc__
    assert all(re.search(rf"\b{name}\b", SECTIONS[section]) for name in names)
    assert {name for name in vars(protocol) if not name.startswith("_")} <= set(names)


def test_every_kind_has_a_row_and_a_section() -> None:
    assert all(f"| `lora_bench.{kind}` |" in PAGE for kind in KINDS)
    assert len(PROTOCOLS) == len(KINDS)


def test_the_defaults_of_the_page_are_those_of_the_code() -> None:
    assert f"`batch_s` ({plugin.BATCH_S:g} without it)" in SECTIONS["An encoder"]
    assert f"`batch_s` ({captioner.BATCH_S:g} without it)" in " ".join(SECTIONS["A captioner"].split())
    assert f"`max_left_out` ({distance_plugin.MAX_LEFT_OUT})" in SECTIONS["A distance"]


def test_a_class_without_settings_gets_an_empty_model() -> None:
    assert "without it, the class gets an empty model" in " ".join(PAGE.split())
    assert check_settings("encoders.x", object, {}).model_dump() == {}
