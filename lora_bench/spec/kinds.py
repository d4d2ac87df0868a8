"""Kinds of adapters, and which settings belong to which; `targets` belongs to all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import JsonValue

Kind = Literal[
    "lora", "dora", "rslora", "lora+", "pissa", "olora", "eva", "loha", "lokr", "oft", "vera", "ia3", "miss", "delora",
    "full",
]  # fmt: skip
LORA_SETTINGS = ("rank", "budget", "alpha", "dropout", "use_dora", "use_rslora")
SETTINGS: Mapping[str, tuple[str, ...]] = {
    "lora": LORA_SETTINGS,
    "dora": ("rank", "budget", "alpha", "dropout", "use_rslora"),
    "rslora": ("rank", "budget", "alpha", "dropout", "use_dora"),
    "lora+": (*LORA_SETTINGS, "lr_ratio"),
    "pissa": ("rank", "budget", "alpha", "dropout"),
    "olora": ("rank", "budget", "alpha", "dropout"),
    "eva": ("rank", "budget", "alpha", "dropout"),
    "loha": ("rank", "budget", "alpha"),
    "lokr": ("rank", "budget", "alpha", "factor"),
    "oft": ("block_size", "budget"),
    "vera": ("rank", "budget", "dropout"),
    "ia3": (),
    "miss": ("rank", "budget", "dropout"),
    "delora": ("rank", "budget", "dropout", "bound"),
    "full": (),
}
"""Settings of each kind, besides `targets`."""
COMMON = frozenset({"kind", "targets", "path"})
LOW_RANK = frozenset({"lora", "dora", "rslora", "lora+", "pissa", "olora", "eva"})
"""Kinds that PEFT's LoRA layers compute: weights of any precision keep the update apart, so it is not rounded away."""
CHANGING_BASE = frozenset({"pissa", "olora"})
"""Kinds that begin by taking their first update out of the base weights."""
FROM_DATA = frozenset({"eva"})
"""Kinds whose initial values are found from training slices."""
_FLAGS = {"dora": "use_dora", "rslora": "use_rslora"}


def has_setting(kind: str, name: str) -> bool:
    """Return whether a field of `lora` belongs to a kind."""
    return name in COMMON or name in SETTINGS[kind]


def list_kinds(name: str) -> list[str]:
    """List the kinds that a setting belongs to."""
    return [kind for kind, names in SETTINGS.items() if name in names]


def describe_foreign(name: str, kind: str) -> str:
    """What to say of a setting that is stated next to a kind without it."""
    own = ", ".join(("targets", *SETTINGS[kind]))
    return f"`{name}` is no setting of kind `{kind}`, so it would not be used; its settings are {own}"


def spell_kind(settings: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Settings in one spelling: DoRA and rank-stabilised LoRA as the flags of plain LoRA that they are."""
    spelled = dict(settings)
    flag = _FLAGS.get(str(spelled.get("kind")))
    if flag is not None:
        del spelled["kind"]
        spelled[flag] = True
    return spelled


def write_conditions(schema: dict[str, Any]) -> None:
    """Add to a JSON Schema of `lora` that a stated kind excludes the settings of others, and a path all of them."""
    fields = [name for name in schema["properties"] if name not in COMMON]
    schema["allOf"] = [
        {
            "if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]},
            "then": {"properties": {name: False for name in fields if name not in names}},
        }
        for kind, names in SETTINGS.items()
    ]
    schema["allOf"].append(
        {
            "if": {"properties": {"path": {"type": "string"}}, "required": ["path"]},
            "then": {"properties": {name: False for name in schema["properties"] if name != "path"}},
        }
    )
