"""The key of a run's listening pages: which clips an opaque pair id stands for.  It stays in the run's folder."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, JsonValue

from lora_bench.errors import UsageError
from lora_bench.planning.run_folder import RunFolder
from lora_bench.results.reading import read_record, write_record
from lora_bench.results.records import Count, Record

PairKind = Literal["comparison", "identical", "damaged"]
"""A comparison of two configurations, or an attention check: one clip twice, or one clip and a damaged copy."""


class PairSide(Record):
    """One clip of a pair."""

    configuration: str
    trial: str
    is_damaged: bool = False


class Pair(Record):
    """Two clips of one prompt and clip index, in the order in which the page holds them."""

    id: str
    kind: PairKind
    sides: tuple[PairSide, PairSide]
    prompt: str
    clip_index: Count


class Study(Record):
    """The content of one page."""

    id: str
    seed: Count
    questions: tuple[str, ...]
    zero_shot: str
    """The configuration that all others are compared with."""
    pairs: tuple[Pair, ...]


class ListeningKey(Record):
    """All studies of a run, and the secret that their ids are made with."""

    schema_version: Count = Field(1, alias="schema")
    secret: str
    studies: tuple[Study, ...] = ()

    def make_id(self, content: JsonValue) -> str:
        """Return an id that says nothing of its content to those who do not know the secret."""
        text = json.dumps(content, sort_keys=True)
        return hmac.new(bytes.fromhex(self.secret), text.encode(), hashlib.sha256).hexdigest()[:16]

    def add(self, study: Study) -> ListeningKey:
        """Return the key with one more study; a page that is written again has the same id."""
        return self.model_copy(
            update={"studies": (*(old for old in self.studies if old.id != study.id), study)}
        )


def read_key(run: Path) -> ListeningKey:
    """Return the key of a run.

    Raises:
        UsageError: no page was written for this run.
        StoreError: the file is damaged.
    """
    path = RunFolder(run).listening_key
    if not path.is_file():
        raise UsageError(
            f"{path}: does not exist, so these answers cannot be of this run; write its page first with "
            f"`lora-bench listen {run}`"
        )
    return read_record(path, ListeningKey)


def read_or_make_key(run: Path) -> ListeningKey:
    """Return the key of a run, new if it has none yet."""
    path = RunFolder(run).listening_key
    return read_record(path, ListeningKey) if path.is_file() else _make_key()


def _make_key() -> ListeningKey:
    return ListeningKey(schema=1, secret=secrets.token_hex(32), studies=())


def write_key(run: Path, key: ListeningKey) -> None:
    """Write the key of a run."""
    write_record(RunFolder(run).listening_key, key)


def build_study(
    key: ListeningKey, pairs: Sequence[Pair], questions: Sequence[str], seed: int, zero_shot: str
) -> Study:
    """Return pairs as a study, all with their ids."""
    named = tuple(
        pair.model_copy(update={"id": key.make_id([seed, number, pair.model_dump(mode="json")])})
        for number, pair in enumerate(pairs)
    )
    study = key.make_id([[pair.id for pair in named], list(questions)])
    return Study(id=study, seed=seed, questions=tuple(questions), zero_shot=zero_shot, pairs=named)
