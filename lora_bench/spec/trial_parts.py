"""Checks of variants, grid and ablations with their places: every field and value, before any product.

Each change is tried on the defaults, so a wrong value on an axis is found at its own place and once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from pydantic import ValidationError

from lora_bench.errors import Problem
from lora_bench.spec.existing_adapters import find_axis_conflict, find_conflicts
from lora_bench.spec.experiment import MAX_GRID, TrialSettings
from lora_bench.spec.fields import dotted_fields, section_at
from lora_bench.spec.kinds import SETTINGS, describe_foreign, has_setting
from lora_bench.spec.lora import LoraSpec
from lora_bench.spec.problems import describe_errors, describe_unknown_dotted, describe_value
from lora_bench.spec.tree import WHOLE, Node, find_node, merge_nodes, nest_node
from lora_bench.spec.tune import OWN_FIELDS
from lora_bench.spec.words import suggest

_FIELDS = tuple(dotted_fields(TrialSettings))
_LORA_FIELDS = frozenset(dotted_fields(LoraSpec))
PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
Patch = dict[str, Node]


def check_trial_parts(root: Node, seen: set[str]) -> list[Problem]:
    """Problems of `trials` and `ablations`.

    Args:
        root: the document, parents merged and `dataset` resolved.
        seen: places that have a problem already.
    """
    checker = _Checker(root, _base_settings(root), seen=set(seen))
    defaults = checker.base.children.get("lora")
    if defaults is not None:
        stated = {f"lora.{name}": node for name, node in defaults.children.items()}
        checker.check_kind(stated)
        checker.check_size(stated)
    trials = root.children.get("trials")
    if trials is not None:
        variants = trials.children.get("variants")
        for variant in variants.items if variants else []:
            without_name = {
                key: node for key, node in variant.children.items() if key not in {"name", "external"}
            }
            patch = checker.flatten(replace(variant, value=without_name))
            checker.check_kind(patch)
            checker.check_size(patch)
            checker.try_patch(patch)
        grid = trials.children.get("grid")
        if grid is not None:
            checker.check_grid(grid)
    tune = root.children.get("tune")
    if tune is not None:
        axes = tune.children.get("axes", tune)
        stated = {name: node for name, node in axes.children.items() if name not in OWN_FIELDS}
        for axis, values in checker.flatten(replace(axes, value=stated)).items():
            checker.check_values(axis, values)
    ablations = root.children.get("ablations")
    if ablations is not None:
        checker.check_ablations(ablations)
    return checker.problems


def describe_unknown_dataset(name: str, known: Iterable[str]) -> str:
    """What to say of `dataset: <name>` that `datasets` does not have."""
    names = list(known)
    if names:
        return f"`{name}` is no name in `datasets`{suggest(name, names)}; names are {', '.join(names)}"
    return f"`{name}` is no name in `datasets`, which is empty; write `dataset: {{path: <folder>}}`"


def _base_settings(root: Node) -> Node:
    """The settings that trials start from, as nodes."""
    defaults = root.children.get("defaults")
    sections: dict[str, Node] = {}
    for name in ("model", "dataset", "generation"):
        if name in root.children:
            sections[name] = root.children[name]
    for name in ("lora", "train"):
        if defaults is not None and name in defaults.children:
            sections[name] = defaults.children[name]
    return replace(root, value=sections)


@dataclass
class _Checker:
    root: Node
    base: Node
    problems: list[Problem] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def complain(self, node: Node, dotted: str, message: str, *, at_key: bool = False) -> None:
        place = str(node.stated_at if at_key else node.place)
        self.problems.append(Problem(place, dotted, message))

    def flatten(self, node: Node, prefix: str = "") -> Patch:
        """Dotted changes below `node`; unknown fields and repetitions are listed and left out."""
        patch: Patch = {}
        for key, child in node.children.items():
            dotted = f"{prefix}{key}"
            if child.children and dotted not in WHOLE:
                inner = self.flatten(child, f"{dotted}.")
            elif self.is_field(dotted, child):
                inner = {dotted: child}
            else:
                inner = {}
            for name in inner.keys() & patch.keys():
                self.complain(inner[name], name, f"`{name}` appears twice here; keep one", at_key=True)
            patch |= inner
        return patch

    def is_field(self, dotted: str, node: Node) -> bool:
        """Whether a trial has this field; a problem if not."""
        if dotted in _FIELDS or section_at(TrialSettings, dotted.split(".")) is not None:
            return True
        self.complain(node, dotted, describe_unknown_dotted(dotted, _FIELDS), at_key=True)
        return False

    def try_patch(self, patch: Patch) -> None:
        """Validate the settings that a patch leads to; what was seen before is not said again."""
        settings = self.base
        for dotted, node in sorted(patch.items(), key=lambda item: item[0].count(".")):
            if dotted == "dataset" and isinstance(node.value, str):
                named = self.find_dataset(node, node.value)
                if named is not None:
                    settings = replace(settings, value={**settings.children, "dataset": named})
                continue
            settings = merge_nodes(settings, nest_node(tuple(dotted.split(".")), node))
        try:
            TrialSettings.model_validate(settings.to_plain())
        except ValidationError as error:
            for problem in describe_errors(error, settings, TrialSettings):
                if problem.place not in self.seen:
                    self.seen.add(problem.place)
                    self.problems.append(problem)

    def check_kind(self, patch: Patch) -> None:
        """Settings that are stated next to a kind without them, or next to an adapter that exists already.

        Those of parents and overrides are inherited.
        """
        lora = self.base.children.get("lora")
        for dotted, node, message in find_conflicts(patch, lora.children.get("path") if lora else None):
            self.complain(node, dotted, message, at_key=True)
        stated = patch.get("lora.kind")
        if stated is None or not isinstance(stated.value, str) or stated.value not in SETTINGS:
            return  # the models say so
        for dotted, node in patch.items():
            section, _, name = dotted.partition(".")
            is_beside = (
                section == "lora" and name in _LORA_FIELDS and node.place.source == stated.place.source
            )
            if is_beside and not has_setting(stated.value, name):
                self.complain(node, dotted, describe_foreign(name, stated.value), at_key=True)

    def check_size(self, patch: Patch) -> None:
        """A size and a budget for it, stated next to each other; of a parent and its child, the child's counts."""
        budget = patch.get("lora.budget")
        if budget is None or budget.value is None:
            return
        for dotted in ("lora.rank", "lora.block_size"):
            node = patch.get(dotted)
            if node is not None and node.place.source == budget.place.source:
                name = dotted.rpartition(".")[2]
                message = f"`{name}` and `budget` both give the adapter's size; keep one of them"
                self.complain(node, dotted, message, at_key=True)

    def find_dataset(self, node: Node, name: str) -> Node | None:
        """The dataset that a name stands for; a problem if there is none."""
        known = self.root.children["datasets"].children if "datasets" in self.root.children else {}
        if name not in known:
            self.complain(node, "dataset", describe_unknown_dataset(name, known))
        return known.get(name)

    def check_values(self, axis: str, values: Node) -> None:
        """Each value of an axis or a zipped field on its own."""
        if not isinstance(values.value, list):
            return  # the models say so
        for value in values.items:
            stated = replace(value, key_place=value.place)
            patch = (
                self.flatten(stated, f"{axis}.") if value.children and axis not in WHOLE else {axis: stated}
            )
            self.check_kind(patch)
            self.check_size(patch)
            self.try_patch(patch)

    def check_grid(self, grid: Node) -> None:
        """Axes, linked fields, exclusions and the template of names."""
        axes = grid.children["axes"].children if "axes" in grid.children else {}
        size = 1
        for axis, values in axes.items():
            if self.is_field(axis, values):
                self.check_values(axis, values)
            size *= max(len(values.items), 1)
        if size > MAX_GRID:
            self.complain(
                grid, "trials.grid.axes", f"the axes give {size:,} trials; at most {MAX_GRID:,} are planned"
            )
        zipped = dict(self.check_zips(grid, axes))
        self.check_size({**axes, **zipped})
        conflict = find_axis_conflict({**axes, **zipped}, [*axes, *zipped])
        if conflict is not None:
            self.complain(conflict[0], "lora.path", conflict[1], at_key=True)
        excluded = grid.children.get("exclude")
        for combination in excluded.items if excluded else []:
            self.check_exclusion(combination, {**axes, **zipped})
        template = grid.children.get("name")
        if template is not None and isinstance(template.value, str):
            self.check_template(template, template.value)

    def check_zips(self, grid: Node, axes: dict[str, Node]) -> Iterator[tuple[str, Node]]:
        """The linked fields that can be used."""
        node = grid.children.get("zip")
        for link in [node] if node and node.children else node.items if node else []:
            followed = link.children.get("with")
            if followed is None:
                continue
            axis = followed.value
            if not isinstance(axis, str) or axis not in axes:
                near = suggest(axis, axes) if isinstance(axis, str) else ""
                known = ", ".join(axes)
                message = (
                    f"`with` is {describe_value(followed)}, which is not an axis{near}; axes are {known}"
                )
                self.complain(followed, "trials.grid.zip.with", message)
                continue
            for name, values in link.children.items():
                if name == "with" or not self.is_field(name, values):
                    continue
                if name in axes:
                    self.complain(
                        values, name, f"`{name}` is already an axis; it cannot follow one", at_key=True
                    )
                    continue
                if len(values.items) != len(axes[axis].items):
                    n_values, n_axis = len(values.items), len(axes[axis].items)
                    self.complain(
                        values,
                        name,
                        f"`{name}` has {n_values} values; `{axis}`, which it follows, has {n_axis}",
                    )
                self.check_values(name, values)
                yield name, values

    def check_exclusion(self, combination: Node, axes: dict[str, Node]) -> None:
        """An exclusion names axes, and values that they have."""
        for axis, wanted in self.flatten(combination).items():
            if axis not in axes:
                near = suggest(axis, axes)
                self.complain(
                    wanted,
                    axis,
                    f"`{axis}` is not an axis of this grid{near}; axes are {', '.join(axes)}",
                    at_key=True,
                )
            elif wanted.to_plain() not in [value.to_plain() for value in axes[axis].items]:
                message = f"`{axis}` never is {describe_value(wanted)}, so this leaves nothing out"
                self.complain(wanted, axis, message)

    def check_template(self, node: Node, template: str) -> None:
        """Each `{field}` of a name is a field of a trial."""
        for name in PLACEHOLDER.findall(template):
            if name not in _FIELDS and name not in {"dataset"}:
                self.complain(node, "trials.grid.name", describe_unknown_dotted(name, _FIELDS))
        if re.search(r"[{}]", PLACEHOLDER.sub("", template)):
            self.complain(node, "trials.grid.name", f"{describe_value(node)} has an unmatched brace")

    def check_ablations(self, ablations: Node) -> None:
        """Each is one change, from a baseline that is named."""
        if ablations.children and find_node(self.root, ("baseline",))[0].value in (None, self.root.value):
            message = "ablations change a baseline; name the trial with `baseline: <name>`"
            self.complain(ablations, "ablations", message, at_key=True)
        for name, ablation in ablations.children.items():
            if not isinstance(ablation.value, dict):
                continue
            patch = self.flatten(ablation)
            n_stated = len(patch)
            if n_stated > 1:
                stated = ", ".join(f"`{dotted}`" for dotted in patch)
                message = (
                    f"ablation `{name}` changes {n_stated} fields ({stated}); it must change exactly one"
                )
                self.complain(ablation, f"ablations.{name}", message, at_key=True)
            elif not ablation.children:
                message = (
                    f"ablation `{name}` changes nothing; write one change, such as `train.caption_dropout: 0`"
                )
                self.complain(ablation, f"ablations.{name}", message, at_key=True)
            self.try_patch(patch)
