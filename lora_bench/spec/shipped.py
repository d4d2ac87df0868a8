"""The specs that come with lora_bench, found by name: `quickstart`, `specs/quickstart.yaml`, `base/gpu_24gb.yaml`."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def shipped_specs() -> dict[str, Path]:
    """Return every shipped spec by its name: the path below `specs/` without the suffix."""
    # in the package once installed from a wheel, next to it in a checkout
    folder = next(
        (place for place in (_PACKAGE / "specs", _PACKAGE.parent / "specs") if place.is_dir()), None
    )
    files = sorted(folder.rglob("*.yaml")) if folder else []
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files if folder}


def find_spec(stated: str | Path, path: Path) -> Path:
    """Return `path`, or the shipped spec that `stated` names if there is nothing at `path`."""
    name = Path(stated).as_posix().removeprefix("specs/").removesuffix(".yaml")
    return path if path.is_file() else shipped_specs().get(name, path)
