"""Recordings on the command line: their folder, archive or list, or a spec that names it; nothing is written there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lora_bench import api
from lora_bench.artifacts import AudioFormat
from lora_bench.errors import UsageError
from lora_bench.progress import Progress
from lora_bench.slugs import spell_path
from lora_bench.spec.data_sources import find_kind
from lora_bench.spec.schema import DatasetSpec, ModelSpec
from lora_bench.store import Store


class Recordings(NamedTuple):
    """A folder of recordings, the spec's dataset or one with defaults, and the spec's model, None without a spec."""

    folder: Path
    dataset: DatasetSpec
    model: ModelSpec | None


def read_folder_or_spec(
    source: Path, overrides: Sequence[str], store: Store, progress: Progress
) -> Recordings:
    """Return a folder of recordings, and what a spec says about it.

    Args:
        source: a folder or another source of recordings, or a spec.
        overrides: of the spec.
        store: where archives, lists and tables are unpacked to.
        progress: told about that.

    Raises:
        UsageError: there is no such folder or spec, or the spec's dataset has no recordings of its own.
        SpecError: the spec is wrong.
        DatasetError: an archive, a list or a table cannot be read.
    """
    from lora_bench.stages.dataset.sources import locate_folder

    if is_source(source):
        if overrides:
            kind = "a folder" if source.is_dir() else "no spec"
            raise UsageError(f"-o {overrides[0]}: overrides a spec, but {source} is {kind}")
        return Recordings(locate_folder(source, store, progress), DatasetSpec(path=source), None)
    spec = api.load_spec(source, overrides, with_paths=True).spec
    dataset = spec.dataset
    if dataset.path is None:
        raise UsageError(
            f"{source}: its dataset is rendered (`{dataset.builtin}`); expected a dataset with a path"
        )
    folder = locate_folder(dataset.path, store, progress, dataset.source_settings)
    return Recordings(folder, dataset, spec.model)


def is_source(source: Path) -> bool:
    """Return whether a path names recordings themselves, not a spec."""
    return source.is_dir() or find_kind(source) != "folder"


def find_audio_format(model: ModelSpec | None) -> AudioFormat | None:
    """Return the sample rate and channels of a model; None without one, or if they are not known here."""
    if model is None:
        return None
    from lora_bench.forecast.shapes import find_shape

    shape = find_shape(model)
    return None if shape is None else AudioFormat(shape.sample_rate_hz, shape.channels)


def refuse_place_inside(option: str, path: Path, folder: Path) -> None:
    """Refuse to write a file into the folder of recordings.

    Raises:
        UsageError: it lies there.
    """
    if path.absolute().resolve().is_relative_to(folder.resolve()):
        raise UsageError(
            f"{option} {spell_path(path)}: lies in the folder of recordings, which lora_bench never writes to; choose "
            f"a place outside of it, with {option}"
        )
