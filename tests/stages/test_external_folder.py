"""Which files of another system's folder are the clips of which prompt."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from lora_bench.errors import DatasetError, ExternalError
from lora_bench.slugs import prompt_slug
from lora_bench.stages.external.folder import match_clips

LOFI, WALTZ = "warm lofi", "Slow, sad waltz!"
PROMPTS = (LOFI, WALTZ)


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, np.zeros(100), 8000)


def names(folder: Path, prompts: tuple[str, ...] = PROMPTS) -> dict[str, list[str]]:
    found = match_clips(folder, prompts)
    return {
        prompt: [file.relative_to(folder).as_posix() for file in files] for prompt, files in found.items()
    }


def test_subfolders_are_named_by_slugs_with_or_without_the_hash_or_by_the_prompt_itself(
    tmp_path: Path,
) -> None:
    for waltz in (prompt_slug(WALTZ), "slow-sad-waltz", "Slow, sad waltz!"):
        folder = tmp_path / waltz.strip("!")
        write(folder, "warm-lofi/0.wav", f"{waltz}/0.flac")
        assert names(folder) == {LOFI: ["warm-lofi/0.wav"], WALTZ: [f"{waltz}/0.flac"]}


def test_files_are_named_by_slugs_with_a_number(tmp_path: Path) -> None:
    write(tmp_path, "warm-lofi_10.wav", "warm-lofi_9.wav", "slow-sad-waltz.wav", "other_0.wav")
    assert names(tmp_path) == {
        LOFI: ["warm-lofi_9.wav", "warm-lofi_10.wav"],
        WALTZ: ["slow-sad-waltz.wav"],
    }


def test_a_name_that_is_a_slug_itself_counts_before_one_with_a_number(tmp_path: Path) -> None:
    write(tmp_path, "piano-1.wav", "piano-2.wav", "piano-2-0.wav")
    assert names(tmp_path, ("piano", "piano 2")) == {
        "piano": ["piano-1.wav"],
        "piano 2": ["piano-2-0.wav", "piano-2.wav"],
    }


def test_a_table_names_the_prompt_of_each_file_and_alone_counts(tmp_path: Path) -> None:
    write(tmp_path, "a.wav", "b.wav", "deep/c.wav", "warm-lofi/0.wav")
    (tmp_path / "prompts.csv").write_text(
        'file,prompt,seed\nb.wav,warm lofi,1\ndeep/c.wav,"Slow, sad waltz!",2\na.wav,another,3\n',
        encoding="utf-8",
    )
    assert names(tmp_path) == {LOFI: ["b.wav"], WALTZ: ["deep/c.wav"]}
    (tmp_path / "prompts.csv").unlink()
    lines = [{"file_name": "a.wav", "text": LOFI}, {"file_name": "b.wav", "prompt": WALTZ}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert names(tmp_path) == {LOFI: ["a.wav"], WALTZ: ["b.wav"]}


@pytest.mark.parametrize("name", ["prompts.csv", "metadata.jsonl"])
def test_line_and_paragraph_separators_in_a_prompt_do_not_end_a_line(tmp_path: Path, name: str) -> None:
    prompt = "warm\u2028lofi\x85and\u2029slow\x1cstrings"
    write(tmp_path, "a.wav", "b.wav")
    lines = {
        "prompts.csv": f"file;prompt\na.wav;{prompt}\nb.wav;{WALTZ}\n",
        "metadata.jsonl": "".join(
            f"{json.dumps({'file': file, 'prompt': text}, ensure_ascii=False)}\n"
            for file, text in (("a.wav", prompt), ("b.wav", WALTZ))
        ),
    }
    (tmp_path / name).write_text(lines[name], encoding="utf-8")
    assert names(tmp_path, (prompt, WALTZ)) == {prompt: ["a.wav"], WALTZ: ["b.wav"]}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("file,prompt\nz.wav,warm lofi\n", "prompts.csv:2: there is no file z.wav"),
        (
            "clip,words\na.wav,warm lofi\n",
            "prompts.csv:1: none of the columns `clip`, `words` names audio files; expected a first row such as `file,prompt`",
        ),
        ('file,prompt\na.wav,"warm lofi\n', "prompts.csv:2: unexpected end of data"),
        ("file,prompt\na.wav,warm lofi\n", "prompts.csv has no line with the prompt `Slow, sad waltz!`"),
    ],
)
def test_a_wrong_table_is_an_error_with_its_line(tmp_path: Path, table: str, words: str) -> None:
    write(tmp_path, "a.wav")
    (tmp_path / "prompts.csv").write_text(table, encoding="utf-8")
    with pytest.raises(ExternalError, match=words.replace("(", r"\(")):
        match_clips(tmp_path, PROMPTS)


def test_a_prompt_without_clips_is_an_error_that_names_its_slugs_and_what_is_there(tmp_path: Path) -> None:
    write(tmp_path, "warm-lofi/0.wav")
    with pytest.raises(ExternalError) as caught:
        match_clips(tmp_path, PROMPTS)
    said = str(caught.value)
    assert "holds no clip of 1 of 2 prompts" in said
    assert f"`slow-sad-waltz` or `{prompt_slug(WALTZ)}`" in said
    assert "prompts.csv with the columns `file` and `prompt`; found warm-lofi/0.wav" in said


def test_an_absent_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not exist; expected a folder"):
        match_clips(tmp_path / "absent", PROMPTS)
