"""Folders of recordings on the command line: named themselves, or by a spec; nothing is written into one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lora_bench import api
from lora_bench.artifacts import AudioFormat
from lora_bench.errors import UsageError
from lora_bench.slugs import spell_path
from lora_bench.spec.schema import DatasetSpec


def read_folder_or_spec(source: Path, overrides: Sequence[str]) -> tuple[Path, DatasetSpec]:
    """Return a folder of recordings, and the spec's dataset or one with defaults.

    Raises:
        UsageError: there is no such folder or spec, or the spec's dataset is not a folder.
        SpecError: the spec is wrong.
    """
    if source.is_dir():
        if overrides:
            raise UsageError(f"-o {overrides[0]}: overrides a spec, but {source} is a folder")
        return source, DatasetSpec(path=source)
    dataset = api.load_spec(source, overrides, with_paths=True).spec.dataset
    if dataset.path is None:
        raise UsageError(
            f"{source}: its dataset is rendered (`{dataset.builtin}`); expected a dataset with a path"
        )
    if not dataset.path.is_dir():
        raise UsageError(f"{spell_path(dataset.path)}: is not a folder; expected a folder of recordings")
    return dataset.path, dataset


def find_audio_format(source: Path, overrides: Sequence[str]) -> AudioFormat | None:
    """Return the sample rate and channels of a spec's model; None for a folder, or if they are not known here.

    Raises:
        SpecError: the spec is wrong.
    """
    if source.is_dir():
        return None
    from lora_bench.forecast.shapes import find_shape

    shape = find_shape(api.load_spec(source, overrides, with_paths=True).spec.model)
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
