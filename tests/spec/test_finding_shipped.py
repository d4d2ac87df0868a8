"""Shipped specs are found by name, from any folder; a file that exists always comes first."""

from __future__ import annotations

from pathlib import Path

import pytest

from lora_bench.cli import main as cli
from lora_bench.errors import SpecError, UsageError
from lora_bench.spec import load_spec
from lora_bench.spec.shipped import shipped_specs

OWN = "schema: 1\nname: own\ndataset: {builtin: chiptune}\nprompts: [a]\n"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder as the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    "stated",
    ["quickstart", "quickstart.yaml", "specs/quickstart", "specs/quickstart.yaml", "./specs/quickstart.yaml"],
)
def test_a_shipped_spec_is_found_by_its_name_and_by_the_path_of_the_readme(
    stated: str, elsewhere: Path
) -> None:
    loaded = load_spec(Path(stated))
    assert loaded.spec.name == "quickstart"
    assert loaded.files == (shipped_specs()["quickstart"],)
    assert loaded.file == elsewhere / stated  # what was asked for: a plan names no folder of this machine


def test_a_shipped_spec_in_a_folder_finds_its_parents() -> None:
    loaded = load_spec(Path("musicgen_small/rank_targets"), ["dataset.path=music"])
    assert [file.stem for file in loaded.files] == ["musicgen_small_study", "rank_targets"]


@pytest.mark.parametrize("folder", ["base", "specs/base"])
def test_an_own_spec_extends_a_shipped_base(folder: str, elsewhere: Path) -> None:
    (elsewhere / "own.yaml").write_text(f"{OWN}extends: [{folder}/gpu_24gb.yaml]\n", encoding="utf-8")
    assert load_spec(Path("own.yaml")).spec.model.id == "facebook/musicgen-medium"


def test_a_file_of_the_same_name_comes_before_the_shipped_spec(elsewhere: Path) -> None:
    (elsewhere / "specs").mkdir()
    (elsewhere / "specs" / "quickstart.yaml").write_text(OWN, encoding="utf-8")
    (elsewhere / "quickstart").mkdir()  # a folder is no spec
    assert load_spec(Path("specs/quickstart.yaml")).spec.name == "own"
    assert load_spec(Path("quickstart")).spec.name == "quickstart"


@pytest.mark.parametrize(
    "stated", ["quikstart", "other/quickstart.yaml", "../quickstart.yaml", "/quickstart.yaml", ""]
)
def test_what_is_no_shipped_spec_is_not_found(stated: str) -> None:
    with pytest.raises(UsageError, match=r"cannot be opened .*`lora-bench specs` lists them"):
        load_spec(Path(stated))


def test_a_parent_that_is_nowhere_is_still_an_error(elsewhere: Path) -> None:
    (elsewhere / "own.yaml").write_text(f"{OWN}extends: base/gpu_1gb.yaml\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"parent `base/gpu_1gb\.yaml` cannot be opened"):
        load_spec(Path("own.yaml"))


def test_specs_are_listed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["specs"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[2:]] == list(shipped_specs())
    assert cli.main(["specs", "quickstart"]) == 0
    assert capsys.readouterr().out == shipped_specs()["quickstart"].read_text(encoding="utf-8")
    assert cli.main(["specs", "nope"]) == 2
    assert "expected one of base/gpu_12gb" in capsys.readouterr().err
