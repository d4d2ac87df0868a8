"""Audio files of a folder, by name or by first bytes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lora_bench.audio.content import looks_like_audio
from lora_bench.audio.folder_walk import is_regular, walk_folder
from lora_bench.errors import DatasetError
from lora_bench.slugs import spell_path

AUDIO_SUFFIXES = frozenset(
    {".wav", ".flac", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".mp3", ".m4a", ".aac"}
)
OTHER_SUFFIXES = frozenset(
    {
        *(".wave", ".bwf", ".rf64", ".w64", ".aifc", ".caf", ".au", ".snd"),
        *(".mka", ".mkv", ".webm", ".weba", ".mp4", ".m4b", ".m4r", ".m4v", ".mov", ".3gp", ".ogv", ".ogx"),
        *(".mp2", ".mpga", ".wma", ".asf", ".ac3", ".eac3", ".dts", ".amr", ".spx"),
        *(".ape", ".wv", ".tta", ".tak", ".mpc", ".alac", ".dsf", ".dff", ".ra", ".rm", ".avi", ".flv"),
    }
)
"""Rarer suffixes; FFmpeg or libsndfile decode most of them, and the report names the others."""


@dataclass(frozen=True)
class Listing:
    """The audio files of a folder.

    Attributes:
        files: files that are audio by name or first bytes, sorted; not opened yet.
        dropped: reasons for paths that cannot be opened (broken links, folders without permission), by printable path
            relative to the folder.
        real_folders: real paths of all folders searched.
    """

    folder: Path
    files: tuple[Path, ...]
    dropped: Mapping[str, str]
    real_folders: frozenset[str]

    def name(self, path: Path) -> str:
        """Return the printable path relative to the folder."""
        return spell_path(path.relative_to(self.folder))


def list_folder(folder: Path) -> Listing:
    """Search `folder` at any depth; skip hidden files and folders, follow links.

    Raises:
        DatasetError: `folder` is not a folder, or cannot be read.
    """
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise DatasetError(
            f"{spell_path(folder)}: {found}; expected a folder of audio files ({name_suffixes()})"
        )
    walk = walk_folder(folder)
    if (reason := walk.dropped.get(".")) is not None:
        raise DatasetError(f"{spell_path(folder)}: {reason}; change its permissions")
    audio: list[Path] = []
    for path, status in walk.files:
        suffix = path.suffix.lower()
        is_audio = suffix in AUDIO_SUFFIXES or suffix in OTHER_SUFFIXES
        if is_audio or (is_regular(status) and looks_like_audio(path)):
            audio.append(path)
    dropped = {spell_path(name): reason for name, reason in walk.dropped.items()}
    return Listing(folder, tuple(sorted(audio)), dropped, frozenset(walk.real_folders))


def name_suffixes() -> str:
    """Return the usual suffixes as a list for people."""
    return ", ".join(sorted(suffix[1:] for suffix in AUDIO_SUFFIXES))
