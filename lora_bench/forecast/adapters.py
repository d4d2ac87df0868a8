"""LoRA targets on a model's shape: what they match, and how large the adapter will be."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lora_bench.forecast.kinds import count_shared, find_misfits, list_weighted_parts, size_layer
from lora_bench.forecast.shapes import Linear, ModelShape
from lora_bench.spec.schema import LoraSpec
from lora_bench.spec.targets import explain_unmatched, match_term, split_targets

BYTES_PER_PARAMETER = 4  # adapters are trained and saved in float32
HEADER_BYTES_PER_TENSOR = 145  # name, shape and offsets in a safetensors file


@dataclass(frozen=True)
class AdapterSize:
    """An adapter before it is made.

    Attributes:
        matched_modules: adapted layers per group.
        n_bytes: of its weights file.
        problem: a target that matches nothing; the trial would fail with it.
    """

    matched_modules: Mapping[str, int]
    trainable_params: int
    n_bytes: int
    problem: str | None = None


def size_adapter(shape: ModelShape, lora: LoraSpec) -> AdapterSize:
    """Return the size of an adapter on a model."""
    matched, problem = match_targets(lora.targets, list_trainable(shape, lora))
    counts: dict[str, int] = {}
    for linear in matched:
        counts[linear.group] = counts.get(linear.group, 0) + 1
    sizes = [size_layer(lora, linear) for linear in matched]
    shared = count_shared(lora, matched)
    n_tensors = sum(size.n_tensors for size in sizes) + (2 if shared else 0)
    n_saved = sum(size.saved for size in sizes) + shared
    n_bytes = BYTES_PER_PARAMETER * n_saved + HEADER_BYTES_PER_TENSOR * n_tensors
    return AdapterSize(counts, sum(size.trained for size in sizes), n_bytes, problem)


def list_trainable(shape: ModelShape, lora: LoraSpec) -> tuple[Linear, ...]:
    """List the modules that the targets of a kind choose from."""
    return list_weighted_parts(shape) if lora.kind == "full" else shape.linears


def match_targets(targets: str | Sequence[str], linears: Sequence[Linear]) -> tuple[list[Linear], str | None]:
    """Return the layers that targets match, and a message about the first term that matches none."""
    modules = [linear.name for linear in linears]
    names: set[str] = set()
    problem: str | None = None
    for term in split_targets(targets):
        try:
            found = match_term(term, modules)
        except re.error:
            found = []
        if not found and problem is None:
            groups = sorted({linear.group for linear in linears})
            hint = explain_unmatched(term, modules, groups)
            problem = f"target `{term}` matches no module of the model{hint}"
        names.update(found)
    return [linear for linear in linears if linear.name in names], problem


def list_problems(lora: LoraSpec, shape: ModelShape) -> list[str]:
    """List targets that match no layer of a model, and what exists; then what the kind cannot adapt.

    A trial with one would fail.
    """
    known = list_trainable(shape, lora)
    terms = split_targets(lora.targets)
    found = [problem for term in terms if (problem := match_targets([term], known)[1])]
    if not found:
        return list(find_misfits(lora, match_targets(lora.targets, known)[0]))
    groups = ", ".join(dict.fromkeys(linear.group for linear in known))
    leaves = ", ".join(dict.fromkeys(_name_kind(linear.name) for linear in known))
    there = f"; its groups are {groups}; its modules {leaves}"
    return [problem if ";" in problem else problem + there for problem in found]


def _name_kind(name: str) -> str:
    """Return the end of a module's name, without the number of its layer."""
    return re.sub(r"^decoder\.(model\.decoder\.layers\.\d+\.)?", "", re.sub(r"\.\d+$", "", name))
