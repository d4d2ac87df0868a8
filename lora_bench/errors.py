"""Every error that lora_bench raises on purpose.

```
LoraBenchError                 base; carries an exit code
├── SpecError                  the spec is wrong (exit 2); holds all problems, not the first
├── UsageError                 the command line is wrong (exit 2)
├── DatasetError               the user's audio cannot be used (exit 1)
├── AudioFileError             one audio file cannot be read; names it
├── ModelError                 a model or adapter cannot be loaded or does not fit
│   └── NoModulesMatchedError  a LoRA target matched nothing
├── TrainingError              training cannot continue (NaN, nothing to train on)
├── OutOfMemoryError           the smallest batch did not fit; carries the numbers
├── ScoreError                 a score cannot be computed from these inputs
│   └── UnscoredError          the score is absent for a stated reason (weights missing, N too small)
├── StoreError                 a result folder is damaged, locked or the disk is full
├── ResourceError              a requested CPU, GPU or cluster does not exist
├── StoppedEarlyError          a trial was stopped because others are ahead of it; not a failure
└── InterruptedRunError        the user or the system stopped the run (exit 3)
```

A message states place, value, expectation and mend, in this order, in one or two sentences.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lora_bench.folder_walk import spell_path

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3
EXIT_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it


class LoraBenchError(Exception):
    """Base of all errors that are raised on purpose; `exit_code` is what the command line returns."""

    exit_code = EXIT_FAILURE


class UsageError(LoraBenchError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = EXIT_USAGE


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a spec.

    Attributes:
        place: `file:line:column`, or the override that it came from (`-o lora.rank=x`).
        field: dotted path of the field, `` for the whole document.
        message: value, expectation and mend.
    """

    place: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class SpecError(LoraBenchError):
    """A spec is wrong; `problems` lists everything that was found."""

    exit_code = EXIT_USAGE

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class DatasetError(LoraBenchError):
    """The dataset as a whole cannot be used (missing folder, too few tracks, no captions)."""


class AudioFileError(LoraBenchError):
    """One audio file cannot be used; `path` and `reason` say which and why."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{spell_path(path)}: {reason}")


class ModelError(LoraBenchError):
    """A model or an adapter cannot be loaded, or does not support an operation."""


class NoModulesMatchedError(ModelError):
    """A LoRA target matched no module of the model."""


class TrainingError(LoraBenchError):
    """Training cannot continue."""


class OutOfMemoryError(LoraBenchError):
    """Even the smallest batch did not fit into memory."""


class ScoreError(LoraBenchError):
    """A score cannot be computed from these inputs."""


class UnscoredError(ScoreError):
    """A score is absent for a reason that the report states; the run continues."""


class StoreError(LoraBenchError):
    """A stored result is damaged, held by another process, or cannot be written."""


class ResourceError(LoraBenchError):
    """A requested resource does not exist on this machine or cluster."""


class StoppedEarlyError(LoraBenchError):
    """A trial was stopped because its held-out loss is behind that of others, as the spec asks."""


class InterruptedRunError(LoraBenchError):
    """The run was stopped before it was complete; finished work is kept."""

    exit_code = EXIT_INCOMPLETE
