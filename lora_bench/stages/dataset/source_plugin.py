"""Plug-ins that give the tracks of a dataset: `dataset.path: plugin:NAME`; made once, and kept in the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import BaseModel

from lora_bench.audio import save_wav
from lora_bench.errors import AudioFileError, DatasetError
from lora_bench.plugins import PluginSource, blame, list_plugins, load_class
from lora_bench.plugins.settings import check_settings, describe_plugin
from lora_bench.spec.data_sources import PLUGIN
from lora_bench.stages.dataset.unpacked_folder import UnpackedFolder

TrackFields = Mapping[str, object]
OWN_KEYS = ("name", "audio", "sample_rate_hz", "file")
MAX_CHANNELS = 8


class TrackSource(Protocol):
    """A plug-in as `docs/plugins.md#a-source` asks for it; `provenance` may be absent."""

    def tracks(self) -> Iterable[TrackFields]:
        """Yield a dictionary per track."""
        ...


class PluginTracks:
    """A plug-in as a source of recordings.

    Args:
        path: `plugin:NAME`.
        settings: of the spec's `dataset.source_settings`.

    Raises:
        SpecError: the settings are not those of the plug-in.
        DatasetError: no package offers it, or it cannot be loaded.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        name = path.as_posix().removeprefix(PLUGIN)
        known = list_plugins("sources")
        if name not in known:
            raise DatasetError(
                f"dataset.path: `{path.as_posix()}` is offered by no installed package; expected one of "
                f"{', '.join(PLUGIN + other for other in known) or 'none, for there are no such plug-ins'}; install "
                "its package, or change dataset.path"
            )
        self._source: PluginSource = known[name]
        self._place = f"dataset.path: {path.as_posix()}"
        kind = load_class(self._place, self._source, "tracks", DatasetError)
        self._settings: BaseModel = check_settings("dataset.source_settings", kind, settings)
        with blame(self._place, self._source, "cannot be loaded", DatasetError):
            self._plugin: TrackSource = kind(self._settings)

    @property
    def provenance(self) -> dict[str, str | int | float]:
        """The package and its version, settings, and what the plug-in adds."""
        with blame(self._place, self._source, "cannot be loaded", DatasetError):
            return describe_plugin(self._source, self._settings, self._plugin)

    def write(self, target: UnpackedFolder) -> None:
        """Write all tracks, and what is known about them.

        Raises:
            DatasetError: the plug-in fails, or a track is not as the contract says.
            StoreError: the disk is full.
        """
        lines = [self._write_track(track, number, target) for number, track in enumerate(self._list(), 1)]
        if any(len(line) > 1 for line in lines):
            target.write_fields(lines)

    def _list(self) -> Iterator[TrackFields]:
        """Yield the plug-in's tracks; only errors of its own are its errors."""
        with blame(self._place, self._source, "failed", DatasetError):
            tracks = iter(self._plugin.tracks())
        while True:
            with blame(self._place, self._source, "failed", DatasetError):
                track = next(tracks, None)
                if track is not None and not isinstance(track, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
                    raise TypeError(f"a track is a {type(track).__name__}; expected a dictionary")
            if track is None:
                return
            yield track

    def _write_track(self, track: TrackFields, number: int, target: UnpackedFolder) -> Mapping[str, object]:
        file = track.get("file")
        name = str(track.get("name") or (Path(str(file)).name if file is not None else number))
        if file is not None:
            try:
                stream = Path(str(file)).open("rb")  # noqa: SIM115 (closed below)
            except OSError as error:
                raise self._complain(f"gives `{file}`, which cannot be read ({error.strerror})") from error
            with stream:
                target.write(name, stream)
        else:
            name = name if name.lower().endswith((".wav", ".flac")) else f"{name}.wav"
            self._write_sound(track, name, target)
        return {"file_name": name, **{key: value for key, value in track.items() if key not in OWN_KEYS}}

    def _write_sound(self, track: TrackFields, name: str, target: UnpackedFolder) -> None:
        audio, rate_hz = np.asarray(track.get("audio")), track.get("sample_rate_hz")
        if audio.dtype.kind != "f" or not isinstance(rate_hz, int) or rate_hz < 1:
            raise self._complain(
                f"gives track {name} with neither `file` nor `audio` of floats and `sample_rate_hz`, a whole number"
            )
        sound = audio.astype(np.float32)[None] if audio.ndim == 1 else audio.astype(np.float32)
        if sound.ndim != 2 or not 1 <= len(sound) <= MAX_CHANNELS:
            raise self._complain(
                f"gives track {name} with audio of shape {audio.shape}; expected [S] or [C, S]"
            )
        place = target.place(name)
        if place is None:
            raise self._complain(f"gives track {name}, a hidden file, which is not read; name it otherwise")
        try:
            save_wav(place, sound, rate_hz)
        except AudioFileError as error:
            raise self._complain(f"gives track {name}, {error.reason}") from error

    def _complain(self, words: str) -> DatasetError:
        return DatasetError(f"{self._place}: the plug-in of {self._source.package} {words}")
