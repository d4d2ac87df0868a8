"""When clips of another system have to be read or generated again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from lora_bench.audio.folder_walk import walk_folder
from lora_bench.slugs import spell_path
from lora_bench.spec.external import ExternalSpec
from lora_bench.store import hash_file, hash_json

VERSION = 1  # raise it when the same files give other clips


def fingerprint_external(external: ExternalSpec) -> str:
    """Return a cheap identity of the files (names, sizes, times), to notice that one changed.

    It only decides whether a finished trial is looked at again; results are keyed by content.
    """
    found: list[tuple[str, int, int]] = []
    for path in external.paths:
        if path.is_dir():
            found += [
                (spell_path(file), status.st_size, status.st_mtime_ns)
                for file, status in walk_folder(path).files
            ]
        elif path.is_file():
            status = path.stat()
            found.append((spell_path(path), status.st_size, status.st_mtime_ns))
    return hash_json(sorted(found))


def key_files(files: Mapping[str, Sequence[Path]], clip_s: float) -> str:
    """Return the identity of clips by prompt: their contents, in order, and their length."""
    hashes = {prompt: [hash_file(file) for file in group] for prompt, group in files.items()}
    return hash_json([VERSION, hashes, clip_s])


def key_command(external: ExternalSpec, clip_s: float, seed: int) -> str:
    """Return the identity of a command's clips: its words, settings and version, and the contents of its files."""
    contents = {spell_path(path): hash_file(path) for path in external.paths if path.is_file()}
    return hash_json([VERSION, external.identify(), contents, clip_s, seed])
