"""Folder names from prompts."""

from hypothesis import given
from hypothesis import strategies as st

from lora_bench.names import prompt_slug, prompt_slugs, slugify


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
