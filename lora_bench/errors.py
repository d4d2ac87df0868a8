"""Every error that lora_bench raises on purpose.

```
LoraBenchError                 base; carries an exit code
├── SpecError                  the spec is wrong (exit 2); holds all problems, not the first
├── UsageError                 the command line is wrong (exit 2)
├── DatasetError               the user's audio cannot be used (exit 1)
├── AudioFileError             one audio file cannot be read; names it
├── ModelError                 a model or adapter cannot be loaded or does not fit
│   └── NoModulesMatchedError  a LoRA target matched nothing
├── ExternalError              clips of another system are missing, or its command failed
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

import errno
import getpass
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lora_bench.slugs import spell_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INCOMPLETE = 3
EXIT_INTERRUPTED = 130  # 128 and the number of SIGINT, as shells have it

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
KEPT = "free some space and run the same command again; finished work is kept"
_CHOOSE = "choose another path"
_REASONS: Mapping[int, tuple[str, str]] = {
    errno.EACCES: ("permission denied{user}", f"change the permissions, or {_CHOOSE}"),
    errno.EPERM: ("not permitted{user}", f"change the permissions, or {_CHOOSE}"),
    errno.EROFS: ("the file system is read-only", f"mount it writable, or {_CHOOSE}"),
    errno.ENOSPC: ("the disk is full ({detail})", KEPT),
    errno.EDQUOT: ("the disk is full ({detail})", KEPT),
    errno.EFBIG: ("the file is larger than this file system or `ulimit -f` allows", f"raise the limit, or {_CHOOSE}"),
    errno.ENAMETOOLONG: ("the name is too long for this file system", "use shorter names"),
    errno.EISDIR: ("is a folder, but a file is expected", f"remove it, or {_CHOOSE}"),
    errno.ENOTDIR: ("{obstacle}is a file, but a folder is expected", f"remove it, or {_CHOOSE}"),
    errno.EEXIST: ("{obstacle}already exists", f"remove it, or {_CHOOSE}"),
    errno.ENOTEMPTY: ("the folder is not empty", f"empty it, or {_CHOOSE}"),
    errno.ENOENT: ("does not exist", "check the path"),
    errno.ELOOP: ("its symbolic links form a loop", "correct the links"),
    errno.EXDEV: ("a file cannot be renamed across file systems", "keep the folder on one file system"),
    errno.EBUSY: ("is in use by another process", "wait for that process and run the same command again"),
    errno.ETXTBSY: ("is in use by another process", "wait for that process and run the same command again"),
    errno.EIO: ("the disk reports an input/output error", "check the disk, then run the same command again"),
    errno.ESTALE: ("the file server has lost the file", "mount it again, then run the same command again"),
    errno.EMFILE: ("too many open files", "raise the limit with `ulimit -n 4096` and run the same command again"),
    errno.ENFILE: ("the machine has too many open files", "close other programs and run the same command again"),
    errno.ENOMEM: ("the machine is out of memory", "close other programs and run the same command again"),
    errno.ENOLCK: ("the file system has no locks left", "check its lock service, or choose a folder on a local disk"),
    errno.ENOSYS: ("the file system does not support this ({detail})", "choose a folder on a local disk"),
    errno.EOPNOTSUPP: ("the file system does not support this ({detail})", "choose a folder on a local disk"),
    errno.EINVAL: ("the file system refuses this name or operation", f"use plain names, or {_CHOOSE}"),
    errno.EILSEQ: ("the file system refuses the characters of this name", "use plain names"),
}  # fmt: skip
_UNKNOWN = ("{detail}", "resolve this and run the same command again; finished work is kept")


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

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,)


class DatasetError(LoraBenchError):
    """The dataset as a whole cannot be used (missing folder, too few tracks, no captions)."""


class AudioFileError(LoraBenchError):
    """One audio file cannot be used; `path` and `reason` say which and why."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{spell_path(path)}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.path, self.reason)


class ModelError(LoraBenchError):
    """A model or an adapter cannot be loaded, or does not support an operation."""


class NoModulesMatchedError(ModelError):
    """A LoRA target matched no module of the model."""


class ExternalError(LoraBenchError):
    """Clips of another system are missing, or the command that generates them failed."""


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


def describe_error(error: BaseException) -> str:
    """Return the message of any error, with `describe_os_error` for those of the operating system."""
    return describe_os_error(error) if isinstance(error, OSError) else str(error)


def describe_os_error(error: OSError) -> str:
    """Return `path: reason; mend`.

    An error that carries only words, such as one of a library, keeps its words, on one line.
    """
    if error.errno is None or not error.strerror:
        return " ".join(str(error).split()) or type(error).__name__
    path = _name_path(error)
    detail = f"{error.strerror[:1].lower()}{error.strerror[1:]}"
    reason, mend = _REASONS.get(error.errno, _UNKNOWN)
    words = reason.format(user=_name_user(), detail=detail, obstacle=_find_obstacle(path))
    return f"{path}: {words}; {mend}" if path else f"{words}; {mend}"


def _name_path(error: OSError) -> str | None:
    """Return the path that the error is about; None for a file descriptor."""
    names = (error.filename, error.filename2)
    for name in names if error.errno == errno.ENOENT else reversed(names):
        if isinstance(name, bytes):
            return os.fsdecode(name)
        if isinstance(name, str) and name:
            return name
    return None


def _find_obstacle(path: str | None) -> str:
    """Return the nearest file above a path, where a folder is expected; empty if it is the path itself."""
    for parent in Path(path or "").parents:
        with suppress(OSError):
            if parent.is_file():
                return f"{parent} "
    return ""


def _name_user() -> str:
    """Describe the user, by number where it has no name, as in a container."""
    try:
        return f" for the user {getpass.getuser()}"
    except (KeyError, OSError, ImportError):
        return f" for the user {os.getuid()}" if hasattr(os, "getuid") else ""
