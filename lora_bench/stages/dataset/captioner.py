"""A plug-in that describes tracks by their sound; its answers are kept by content, package and settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lora_bench.audio import RESAMPLER, load_audio, resample, to_channels
from lora_bench.errors import DatasetError
from lora_bench.plugins import blame, list_plugins, load_class
from lora_bench.plugins.settings import check_settings, describe_plugin
from lora_bench.spec.captions import CaptionSpec
from lora_bench.stages.dataset.field_names import Value
from lora_bench.stages.dataset.metadata import read_fields
from lora_bench.store import Store, hash_json, read_json, write_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIELD = "dataset.captions.captioner"
VERSION = 1
"""Part of the cache key; raise it when the same track is handed over in another way."""
BATCH_S = 120.0
"""Seconds of audio in one call of a plug-in that does not say."""

Answer = str | Mapping[str, object]


class CaptionerPlugin(Protocol):
    """A plug-in as `docs/plugins.md#a-captioner` asks for it.

    `excerpt_s`, `batch_s` and `provenance` may be absent.
    """

    sample_rate_hz: int

    def caption(self, tracks: Sequence[NDArray[np.float32]]) -> Sequence[Answer]:
        """Return an answer for each mono track [S]."""
        ...


class Captioner:
    """A plug-in as a source of captions.

    Args:
        spec: names it, with its settings.

    Attributes:
        name: of its entry point.
        n_kept: tracks of the last `describe` whose answers were kept from an earlier call.

    Raises:
        SpecError: the settings are not those of the plug-in.
        DatasetError: no package offers it, or it cannot be loaded.
    """

    def __init__(self, spec: CaptionSpec) -> None:
        self.name = str(spec.captioner)
        self.n_kept = 0
        known = list_plugins("captioners")
        if self.name not in known:
            raise DatasetError(
                f"{FIELD}: `{self.name}` is offered by no installed package; expected one of "
                f"{', '.join(known) or 'none, for there are no such plug-ins'}; install its package, or change {FIELD}"
            )
        self._source = known[self.name]
        self._place = f"{FIELD}: {self.name}"
        kind = load_class(self._place, self._source, "caption", DatasetError)
        self._settings = check_settings("dataset.captions.captioner_settings", kind, spec.captioner_settings)
        self._class = kind

    @cached_property
    def _plugin(self) -> CaptionerPlugin:
        from lora_bench.models.device import choose_device  # imports torch, which `validate` does without

        with blame(self._place, self._source, "cannot be loaded", DatasetError):
            return self._class(self._settings, str(choose_device("auto")))

    @property
    def origin(self) -> str:
        """Name and package, as the origin of a caption."""
        return f"captioner {self.name}, {self._source.package}"

    def describe(self, folder: Path, hashes: Mapping[str, str], store: Store) -> dict[str, dict[str, Value]]:
        """Return the fields of every track, `caption` among them, by path relative to `folder`.

        Args:
            folder: of the dataset.
            hashes: content hash of each track's file, by path relative to `folder`.
            store: keeps the answers.

        Raises:
            DatasetError: the plug-in fails, or returns something else than the contract says.
            AudioFileError: a file cannot be read.
            StoreError: the disk is full.
        """
        plugin = self._plugin
        with blame(self._place, self._source, "cannot be loaded", DatasetError):
            facts = {
                "version": VERSION,
                **describe_plugin(self._source, self._settings, plugin),
                "captioner": self.name,
                "sample_rate_hz": int(plugin.sample_rate_hz),
                "excerpt_s": getattr(plugin, "excerpt_s", None),
                "resampler": RESAMPLER,
            }
        keys = {path: hash_json({**facts, "content": content}, length=32) for path, content in hashes.items()}
        wanted = [path for path in hashes if not (store.root / "fields" / keys[path]).is_dir()]
        self.n_kept = len(hashes) - len(wanted)
        for paths, tracks in self._read(folder, wanted):
            for path, fields in zip(paths, self._ask(paths, tracks), strict=True):
                store.get_or_make(
                    "fields", keys[path], lambda draft, f=fields: write_json(draft / "fields.json", f)
                )
        found: dict[str, dict[str, Value]] = {}
        for path in hashes:
            written: dict[str, Any] = read_json(store.root / "fields" / keys[path] / "fields.json")
            found[path] = {name: Value(value, self.origin) for name, value in written.items()}
        return found

    def _read(
        self, folder: Path, paths: Sequence[str]
    ) -> Iterator[tuple[list[str], list[NDArray[np.float32]]]]:
        """Yield tracks in batches; each is read when it is needed."""
        with blame(self._place, self._source, "cannot be loaded", DatasetError):
            rate_hz = int(self._plugin.sample_rate_hz)
            budget = int(float(getattr(self._plugin, "batch_s", BATCH_S)) * rate_hz)
            excerpt_s = getattr(self._plugin, "excerpt_s", None)
            n_kept = None if excerpt_s is None else int(float(excerpt_s) * rate_hz)
        names: list[str] = []
        tracks: list[NDArray[np.float32]] = []
        for path in paths:
            audio, own_hz = load_audio(folder / path)
            track = resample(to_channels(audio, 1), own_hz, rate_hz)[0]
            begin = 0 if n_kept is None else max(0, (len(track) - n_kept) // 2)
            track = np.ascontiguousarray(track[begin:][:n_kept], dtype=np.float32)
            if names and sum(map(len, tracks)) + len(track) > budget:
                yield names, tracks
                names, tracks = [], []
            names.append(path)
            tracks.append(track)
        if names:
            yield names, tracks

    def _ask(
        self, paths: Sequence[str], tracks: Sequence[NDArray[np.float32]]
    ) -> list[dict[str, str | float]]:
        with blame(self._place, self._source, "failed", DatasetError):
            answers = list(self._plugin.caption(tracks))
        who = f"{self._place}: the plug-in of {self._source.package}"
        if len(answers) != len(tracks):
            raise DatasetError(
                f"{who} returned {len(answers)} answers for {len(tracks)} tracks; expected one each"
            )
        found: list[dict[str, str | float]] = []
        for path, answer in zip(paths, answers, strict=True):
            try:
                fields = read_fields(answer if isinstance(answer, Mapping) else {"caption": answer})
            except ValueError as error:
                raise DatasetError(f"{who} returned for {path} what cannot be a caption: {error}") from error
            if not fields:
                raise DatasetError(
                    f"{who} returned {answer!r} for {path}; expected a caption, or a dictionary of fields"
                )
            found.append(fields)
        return found


def ask_captioner(
    spec: CaptionSpec, folder: Path, hashes: Mapping[str, str], store: Store
) -> tuple[dict[str, dict[str, Value]], list[str]]:
    """Return what the captioner of a spec says about tracks, and remarks; otherwise as `Captioner.describe`."""
    captioner = Captioner(spec)
    found = captioner.describe(folder, hashes, store)
    kept = f"captions: answers of {captioner.origin} about {captioner.n_kept} of {len(hashes)} tracks are kept ones"
    return found, [kept] if captioner.n_kept else []
