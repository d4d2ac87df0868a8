"""The section `lora`: the kind of an adapter, where it goes, and the settings of its kind."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
    model_validator,
)

from lora_bench.spec.budgets import Budget
from lora_bench.spec.kinds import Kind, has_setting, spell_kind, write_conditions
from lora_bench.spec.section import Section, is_none
from lora_bench.spec.targets import UNADAPTABLE, split_targets
from lora_bench.spec.words import suggest

TARGET_WORDS = (
    "self_attention", "cross_attention", "attention", "ffn", "heads", "conditioning", "all", *UNADAPTABLE,
)  # fmt: skip


class LoraSpec(Section):
    """One configuration of an adapter.

    A setting that the kind does not have is inherited (from defaults, for other kinds) and has no effect: it is not
    written, and trials that differ only in it are one trial.
    """

    model_config = ConfigDict(json_schema_extra=write_conditions)

    path: Annotated[str, StringConstraints(min_length=1)] | None = None
    """An adapter that exists already: a folder as PEFT writes it, or a hub id. It is not trained, and has no other
    settings here: kind, rank and targets are those of its files."""
    kind: Kind = "lora"
    """Kind of adapter; `full` trains the weights themselves. Each kind has settings of its own, and `targets`."""
    rank: Annotated[int, Field(ge=1, le=1024)] = 16
    """Rank of the update; the adapter's size grows linearly with it. Not of oft, ia3 and full."""
    budget: Annotated[Budget | None, Field(exclude_if=is_none)] = None
    """Trainable parameters at most, in place of `rank` (`block_size` of oft): the size that comes nearest is chosen
    when the spec is planned. `400k` and `1.5M` are numbers too. Not of ia3 and full, which have no size to choose."""
    alpha: Annotated[float, Field(gt=0.0)] | None = None
    """Numerator of the scale (the update is alpha / rank * B A); null is 2 * rank. Of the kinds of LoRA, loha
    and lokr."""
    targets: Annotated[str, StringConstraints(min_length=1)] | list[str] = "attention"
    """`self_attention`, `cross_attention`, `attention`, `ffn`, `heads`, `conditioning`, `all`, a sum
    such as `attention+ffn`, a list of module names, or `re:<regular expression>`. Kind full also takes `norms`,
    `embeddings`, and `decoder` for all weights of the decoder."""
    dropout: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.05
    """Dropout on the adapter's input while training. Not of loha, lokr, oft, ia3 and full."""
    use_dora: bool = False
    """Weight-decomposed LoRA."""
    use_rslora: bool = False
    """Scale by alpha / sqrt(rank)."""
    lr_ratio: Annotated[float, Field(ge=1.0, le=1000.0)] = 16.0
    """Learning rate of B over that of A, of kind lora+."""
    factor: Annotated[int | None, Field(ge=2, le=1024)] = None
    """Size of the first Kronecker factor of kind lokr; null makes both factors as equal as they can be."""
    block_size: Annotated[int, Field(ge=2, le=1024)] = 32
    """Width of the rotated blocks of kind oft; it must divide the inputs of every target."""
    bound: Annotated[float, Field(gt=0.0)] = 15.0
    """Initial bound on the update's norm of kind delora (PEFT's `delora_lambda`)."""

    @field_validator("targets")
    @classmethod
    def _known_targets(cls, value: str | list[str]) -> str | list[str]:
        if isinstance(value, list):
            if not value or not all(value):
                raise ValueError("a list of targets needs at least one module name, and no name may be empty")
            return value
        if value.startswith("re:"):
            try:
                re.compile(value.removeprefix("re:"))
            except re.error as error:
                raise ValueError(f"`{value}` is not a regular expression: {error}") from None
            return value
        words = [word.strip() for word in value.split("+")]
        for word in words:
            if word not in TARGET_WORDS:
                near = suggest(word, TARGET_WORDS)
                raise ValueError(
                    f"`{word}` is not a target{near}; targets are {', '.join(TARGET_WORDS)}, sums of them "
                    "(attention+ffn), a list of module names, or `re:` and a regular expression"
                )
        return "+".join(words)

    @model_validator(mode="after")
    def _linear_targets(self) -> LoraSpec:
        terms = split_targets(self.targets) if isinstance(self.targets, str) else ()
        for word in terms:
            if word in UNADAPTABLE and self.kind != "full":
                raise ValueError(
                    f"target `{word}` holds more than linear layers, which kind `{self.kind}` cannot adapt; use "
                    "`all` for all linear layers, or kind `full`"
                )
        return self

    @model_serializer(mode="wrap")
    def _write(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The settings of the kind; plain LoRA is written as before there were others, so its runs are still found.

        Of an adapter that exists, its path alone: all else is in its files.
        """
        if self.path is not None:
            return {"path": self.path}
        settings: dict[str, Any] = write(self)
        is_plain = self.kind == "lora"
        return {
            name: value
            for name, value in settings.items()
            if has_setting(self.kind, name) and name != "path" and not (is_plain and name == "kind")
        }

    @property
    def is_trained(self) -> bool:
        """Whether the adapter is trained, rather than read from files that exist."""
        return self.path is None

    @property
    def is_dora(self) -> bool:
        """Whether magnitude and direction are trained apart."""
        return self.kind == "dora" or (self.use_dora and has_setting(self.kind, "use_dora"))

    @property
    def is_rslora(self) -> bool:
        """Whether the update is scaled by alpha / sqrt(rank)."""
        return self.kind == "rslora" or (self.use_rslora and has_setting(self.kind, "use_rslora"))

    @property
    def has_dropout(self) -> bool:
        """Whether the kind has dropout, and it is on."""
        return has_setting(self.kind, "dropout") and self.dropout > 0

    def spell(self) -> Mapping[str, JsonValue]:
        """Return the settings as JSON in one spelling, by which adapters are compared."""
        return spell_kind(self.model_dump(mode="json"))

    @property
    def resolved_alpha(self) -> float:
        """Alpha with its default of twice the rank."""
        return self.alpha if self.alpha is not None else 2.0 * self.rank
