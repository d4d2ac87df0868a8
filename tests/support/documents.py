"""Code blocks of documents, and the folder in which their commands are run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from lora_bench.api import plan_experiment
from lora_bench.cli.main import main
from lora_bench.errors import SpecError
from lora_bench.spec import load_spec
from support import ROOT
from support.tiny_experiment import write_music

FENCE = re.compile(r"^( *)```(\w*)\s*$")
MARK = re.compile(r"^ *<!-- not run: (.+) -->$")
REASONS = ("needs a GPU", "needs a network", "needs several machines", "takes minutes", "another test does")
ALL_FIELDS = {
    "schema": 1,
    "name": "base",
    "model": {"id": "pocket"},
    "dataset": {"builtin": "chiptune"},
    "prompts": ["a"],
    "metrics": ["mfcc20"],
    "trials": {
        "grid": {
            "name": "r{lora.rank}-{lora.targets}",
            "axes": {
                "lora.rank": [2, 4, 6, 8, 12, 16, 24, 32, 48, 64],
                "lora.targets": ["attention", "ffn", "all"],
            },
        }
    },
}
"""What a block that shows a part of a spec is added to; its trials take the place of these."""


@dataclass(frozen=True)
class Block:
    """A fenced block; `mark` is the reason why it is not run, if it has one."""

    line: int
    language: str
    text: str
    mark: str | None


def read_blocks(document: Path) -> Iterator[Block]:
    """Yield every fenced block of a document."""
    lines = document.read_text(encoding="utf-8").splitlines()
    mark, start, indent, language = None, None, "", ""
    for number, line in enumerate(lines, start=1):
        fence = FENCE.match(line)
        if start is None and fence:
            start, (indent, language) = number, fence.groups()
        elif start is not None and line == f"{indent}```":
            text = "\n".join(inner.removeprefix(indent) for inner in lines[start : number - 1])
            yield Block(start, language, text, mark)
            start = mark = None
        elif start is None and line.strip():
            found = MARK.match(line)
            mark = found[1] if found else None


def read_commands(text: str) -> list[list[str]]:
    """Split lines of a shell into words, without comments."""
    joined = text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in joined) if words]


@dataclass
class ReaderFolder:
    """The folder of a reader who types what a document says.

    A spec that appears there, from a block or from a command, is first checked as it stands.  Then a spec of the same name takes its
    place, which extends it with a tiny model of random weights, six short tunes, one prompt, two steps and two clips, so that
    `run` takes seconds.  `quickstart` is such a spec from the start, with one adapter.
    """

    place: Path
    capsys: pytest.CaptureFixture[str]
    reduced: set[Path] = field(default_factory=set[Path])

    def __post_init__(self) -> None:
        (self.place / "data").mkdir()
        write_music(self.place / "data" / "my_genre")
        from benchmarks.random_model import TINY, save_random_musicgen  # loads torch

        save_random_musicgen(self.place / "tiny-musicgen", TINY)
        (self.place / "prompts.txt").write_text("a waltz\n", encoding="utf-8")
        for name in ("quickstart", "quickstart.yaml"):
            shipped = str(ROOT / "specs" / "quickstart.yaml")
            one = {"variants": [{"name": "r4-attention", "lora": {"rank": 4}}]}
            self._reduce(self.place / name, shipped, "quickstart", trials=one)

    def run(self, block: Block) -> None:
        """Do what a block says.

        Raises:
            AssertionError: a command fails, output differs, or a spec is not valid.
        """
        {"sh": self.run_shell, "console": self.compare, "python": self.run_python, "yaml": self.write_spec}[
            block.language
        ](block.text)
        for spec in self.place.glob("**/*.yaml"):
            if "full" not in spec.stem and not {"runs", "reports", "adapter"} & set(spec.parts):
                self._replace(spec)

    def run_shell(self, text: str) -> None:
        for words in read_commands(text):
            assert words[0] == "lora-bench", f"`{words[0]}` is not run by tests; mark the block"
            code = main(words[1:])
            captured = self.capsys.readouterr()
            assert code == 0, f"{shlex.join(words)} ends with {code}\n{captured.out}{captured.err}"

    def compare(self, text: str) -> None:
        """Compare output; a line `...` stands for any lines."""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, expected = part.partition("\n")
            (words,) = read_commands(command)
            main(words[1:])
            captured = self.capsys.readouterr()
            pattern = re.escape(expected.strip()).replace(r"\.\.\.", ".*")
            found = (captured.out + captured.err).strip()
            assert re.fullmatch(pattern, found, flags=re.DOTALL), f"$ {command}\n{found}"

    def run_python(self, text: str) -> None:
        exec(compile(text, "block", "exec"), {"__name__": "block"})

    def write_spec(self, text: str) -> None:
        """Check a spec, and write it to the file that its first line names; a part of a spec is added to a whole one."""
        title = re.match(r"# (\S+\.yaml)(, with an error)?$", text, flags=re.MULTILINE)
        file = self.place / (title[1] if title else "full-part.yaml")
        file.parent.mkdir(exist_ok=True)
        base = self.place / "full-base.yaml"
        stated = yaml.safe_load(text)
        fields = {name: value for name, value in ALL_FIELDS.items() if name != "trials" or name not in stated}
        base.write_text(yaml.safe_dump(fields), encoding="utf-8")
        is_whole = "schema" in stated
        file.write_text(
            text if is_whole else f"schema: 1\nextends: [full-base.yaml]\n{text}", encoding="utf-8"
        )
        if title and title[2]:
            self.reduced.add(file)
            with pytest.raises(SpecError):
                load_spec(file)
        else:
            plan_experiment(load_spec(file))

    def _replace(self, file: Path) -> None:
        if file in self.reduced:
            return
        plan = plan_experiment(load_spec(file))
        full = file.with_stem(f"full-{file.stem}")
        file.rename(full)
        self._reduce(file, full.name, plan.name)

    def _reduce(self, file: Path, parent: str, name: str, **changes: Any) -> None:
        music = {"path": str(self.place / "data" / "my_genre"), "builtin": None, "clip_s": 1}
        spec: dict[str, Any] = {
            "schema": 1,
            "name": name,
            "extends": [parent],
            "model": {
                "id": str(self.place / "tiny-musicgen"),
                "dtype": "bfloat16",
            },  # float32 would compile steps first
            "dataset": {**music, "captions": {"text": "a tune", "source": None}, "split": {"eval_frac": 0.5}},
            "generation": {"n_clips": 2, "clip_s": 0.5},
            "metrics": ["encodec"],
            "defaults": {
                "train": {
                    "steps": 2,
                    "batch_size": 2,
                    "eval_every": 2,
                    "checkpoint_every": 2,
                    "precision": None,
                }
            },
            "prompts": ["a tune"],
            "resources": {"gpu": 0, "cpu": 1},
            **changes,
        }
        file.write_text(yaml.safe_dump(spec), encoding="utf-8")
        self.reduced.add(file)
