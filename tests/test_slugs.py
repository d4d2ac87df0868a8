"""Folder names from prompts."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from lora_bench.slugs import clean_name, prompt_slug, prompt_slugs, series_slugs, slugify
from lora_bench.spec.section import Name


def test_a_plain_prompt_is_its_own_folder_name() -> None:
    assert prompt_slug("maplestory background music") == "maplestory-background-music"


def test_prompts_that_slug_alike_get_different_folders() -> None:
    slugs = prompt_slugs(["Rock, loud!", "rock loud", "rock  loud"])
    assert len(set(slugs.values())) == 3
    assert slugs["rock loud"] == "rock-loud"


def test_a_korean_prompt_has_a_folder_of_its_own() -> None:
    assert prompt_slug("메이플스토리 배경 음악") != prompt_slug("신나는 음악")


def test_adding_a_prompt_moves_no_folder() -> None:
    assert prompt_slugs(["a b", "c!"])["c!"] == prompt_slugs(["c!"])["c!"]


@given(st.text(max_size=300))
def test_every_slug_is_a_safe_file_name(text: str) -> None:
    for slug in (slugify(text), prompt_slug(text)):
        assert slug
        assert len(slug) <= 60
        assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(st.text(max_size=300), st.text(max_size=300))
def test_different_texts_have_different_slugs_at_any_length(one: str, other: str) -> None:
    for length in (8, 48):
        assert (one == other) == (
            prompt_slug(one, max_length=length) == prompt_slug(other, max_length=length)
        )


SCRIPTS = [
    "音楽", "кино", "موسيقى", "संगीत", "🎹", "🎸", "Café", "Cafe\u0301", "Cafe", "x", "", "con", "Con", "aux.wav", "a" * 300,
    "a" * 299, "ｆｕｌｌ", "full", "a.", "\udce9",
]  # fmt: skip


def test_scripts_forms_cases_and_reserved_names_stay_apart() -> None:
    slugs = [prompt_slug(text) for text in SCRIPTS]
    assert len(set(slugs)) == len(SCRIPTS)
    for slug in slugs:
        assert len(f"{slug}.zero-shot.wav".encode()) <= 255
        assert slug not in {"con", "aux", "nul"}


def test_names_of_folders_in_other_scripts_stay_apart_and_are_names_of_specs() -> None:
    names = [clean_name(text) for text in SCRIPTS]
    assert len(set(names)) == len(SCRIPTS) - 1  # an empty name is `x`
    for name in names:
        TypeAdapter(Name).validate_python(name)
        assert clean_name(name) == name
        assert not name.endswith(".")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Wesnoth_Music", "Wesnoth_Music"),
        ("my music (old)", "my-music-old"),
        ("r8-q+v", "r8-q+v"),
        ("v1.2", "v1.2"),
        ("..hidden", "hidden"),
        ("Rock & Roll – live", "Rock-Roll-live"),
    ],
)
def test_plain_names_are_what_they_were(text: str, name: str) -> None:
    assert clean_name(text) == name


def test_default_files_of_prompts_in_other_scripts_are_different_files(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from lora_bench.adapters import choose as choice
    from lora_bench.adapters import render as rendering
    from lora_bench.cli import main as cli

    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    chosen = SimpleNamespace(plan=SimpleNamespace(name="t"), adapter=None, reason=None)
    monkeypatch.setattr(choice, "choose_trial", lambda *_: chosen)
    asked: list[str] = []

    def render(
        _plan: object, _adapter: object, _request: object, file: Path, _progress: object
    ) -> list[Path]:
        asked.append(file.name)
        return [file]

    monkeypatch.setattr(rendering, "render_pair", render)
    for prompt in ("音楽", "кино", "calm piano", "a calm piece with strings and a slow flute", "a calm piece with strings and a slow flugelhorn"):  # fmt: skip
        assert cli.main(["generate", "run", "--prompt", prompt, "--quiet"]) == 0
    assert len(set(asked)) == 5
    assert "t-calm-piano.wav" in asked


def test_series_of_prompts_are_plain_where_that_says_all_and_never_shared() -> None:
    prompts = ["A march", "Loud!", "loud", "音楽", "кино", "x" * 60, "x" * 61, "Café"]
    slugs = series_slugs(prompts)
    assert len(set(slugs.values())) == len(prompts)
    assert slugs["A march"] == "a-march"
    assert slugs["Café"].startswith("cafe-")
