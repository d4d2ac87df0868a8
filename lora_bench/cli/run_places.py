"""Finding the folder of a run from that folder or from its spec."""

from __future__ import annotations

from pathlib import Path

from lora_bench.errors import UsageError
from lora_bench.planning.run_folder import RunFolder


def resolve_run(target: Path, runs_dir: Path) -> Path:
    """Return the folder of a run.

    Args:
        target: the folder, or a spec with a run in `runs_dir`.
        runs_dir: `--runs-dir`.

    Raises:
        UsageError: neither; or the spec has no run there yet.
        SpecError: the spec is wrong.
    """
    if target.is_dir():
        return target
    if not target.exists():
        raise UsageError(
            f"{target}: expected the folder of a run, such as runs/quickstart, or its spec; neither exists"
        )
    from lora_bench.spec import load_spec

    folder = runs_dir / load_spec(target).spec.name
    if not RunFolder(folder).is_run:
        raise UsageError(
            f"{target}: has no run in {folder} yet; start it with `lora-bench run {target}`, or set --runs-dir to "
            "the folder of its run"
        )
    return folder
