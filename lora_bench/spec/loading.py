"""From a YAML file, its parents and `-o` overrides to a checked spec, or to all problems at once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from lora_bench.errors import Problem, SpecError
from lora_bench.metrics import parse_metric
from lora_bench.spec.experiment import ExperimentSpec
from lora_bench.spec.override_effects import follow_overrides
from lora_bench.spec.overrides import apply_override
from lora_bench.spec.parents import read_with_parents
from lora_bench.spec.paths import find_missing_paths, resolve_paths
from lora_bench.spec.problems import describe_errors
from lora_bench.spec.prompts import expand_prompts
from lora_bench.spec.tree import Node, find_node
from lora_bench.spec.trial_parts import check_trial_parts, describe_unknown_dataset

_PART = re.compile(r"[^\[\].]+")
_PLACE = re.compile(r"^(?P<file>.*):(?P<line>\d+):(?P<column>\d+)$")


@dataclass(frozen=True)
class LoadedSpec:
    """A checked spec and where it came from.

    Attributes:
        spec: the experiment, paths absolute.
        file: the file that was asked for.
        files: all files that were read, parents first.
        overrides: the `-o` values, as written.
        tree: the merged document with places.
        effects: lines that say what the overrides change, by trial.
    """

    spec: ExperimentSpec
    file: Path
    files: tuple[Path, ...]
    overrides: tuple[str, ...]
    tree: Node
    effects: tuple[str, ...] = ()

    def locate(self, field: str) -> str:
        """`file:line:column` of a field such as `trials.variants[2].name`, or of what is nearest above it."""
        parts = [int(part) if part.isdigit() else part for part in _PART.findall(field)]
        return str(find_node(self.tree, tuple(parts))[0].stated_at)


def load_spec(path: Path, overrides: Sequence[str] = (), *, with_paths: bool = False) -> LoadedSpec:
    """Read, merge and check a spec.

    Args:
        path: the YAML file, or the name of a shipped spec.
        overrides: `key=value` each, the value written as in YAML; a field of a trial, such as `lora.rank`, is
            changed in every trial.
        with_paths: whether the problems of a wrong spec include folders that are not there.

    Raises:
        UsageError: the file cannot be opened.
        SpecError: with every problem found in the file, its parents, axes and overrides.
    """
    problems: list[Problem] = []
    files: list[Path] = []
    stated = read_with_parents(path, problems, files)
    if stated is None:
        raise _sorted_error(problems)
    overridden = stated
    for override in overrides:
        overridden = apply_override(overridden, override, problems)
    tree, spec = _check(overridden, problems)
    effects: tuple[str, ...] = ()
    if overrides and spec is not None and not problems:
        followed = follow_overrides(stated, overridden, overrides, _read_silently)
        tree, spec = _check(followed.tree, problems)
        problems += followed.problems
        effects = followed.effects
    if problems or spec is None:
        raise _sorted_error([*problems, *(find_missing_paths(tree) if with_paths else ())])
    return LoadedSpec(spec, path.absolute(), tuple(files), tuple(overrides), tree, effects)


def _check(tree: Node, problems: list[Problem]) -> tuple[Node, ExperimentSpec | None]:
    """A merged document with its references resolved, and its spec if it is valid."""
    tree = resolve_paths(tree)
    tree = _resolve_dataset(tree, problems)
    tree = expand_prompts(tree, problems)
    spec = _validate(tree, problems)
    problems += check_trial_parts(tree, {problem.place for problem in problems})
    _check_metrics(tree, problems)
    return tree, spec


def _read_silently(tree: Node) -> ExperimentSpec | None:
    """The spec of a merged document; None if anything is wrong with it."""
    problems: list[Problem] = []
    spec = _check(tree, problems)[1]
    return None if problems else spec


def _validate(tree: Node, problems: list[Problem]) -> ExperimentSpec | None:
    try:
        return ExperimentSpec.model_validate(tree.to_plain())
    except ValidationError as error:
        known = {problem.place for problem in problems}
        problems += [
            found for found in describe_errors(error, tree, ExperimentSpec) if found.place not in known
        ]
        return None


def _resolve_dataset(tree: Node, problems: list[Problem]) -> Node:
    """The document with `dataset: <name>` replaced by what the name stands for."""
    stated = tree.children.get("dataset")
    if stated is None or not isinstance(stated.value, str):
        return tree
    named = tree.children["datasets"].children if "datasets" in tree.children else {}
    if stated.value not in named:
        problems.append(Problem(str(stated.place), "dataset", describe_unknown_dataset(stated.value, named)))
        return tree
    chosen = replace(named[stated.value], key_place=stated.key_place)
    return replace(tree, value={**tree.children, "dataset": chosen})


def _check_metrics(tree: Node, problems: list[Problem]) -> None:
    """Every metric's name is known to the metrics package."""
    metrics = tree.children.get("metrics")
    for node in metrics.items if metrics else []:
        if not isinstance(node.value, str):
            continue
        try:
            parse_metric(node.value)
        except ValueError as error:
            problems.append(Problem(str(node.place), "metrics", str(error)))


def _sorted_error(problems: list[Problem]) -> SpecError:
    """All problems once each, by file and line, overrides last."""

    def order(problem: Problem) -> tuple[bool, str, int, int]:
        found = _PLACE.match(problem.place)
        if found is None:
            return (True, problem.place, 0, 0)
        return (False, found["file"], int(found["line"]), int(found["column"]))

    return SpecError(sorted(dict.fromkeys(problems), key=order))
