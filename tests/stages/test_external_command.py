"""A command that writes clips: resume after a crash, time limits, wrong files."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import soundfile
from support import ROOT
from support.documents import read_blocks

from lora_bench.errors import ExternalError
from lora_bench.progress import SilentProgress
from lora_bench.spec.external import ExternalSpec
from lora_bench.spec.schema import GenerationSpec
from lora_bench.stages.external.command import Workplace, end_former, generate_external

GENERATOR = Path(__file__).parents[1] / "support" / "sine_generator.py"
GENERATION = GenerationSpec(n_clips=3, clip_s=0.5, seed=7)
PROMPTS = ("warm lofi", "Slow, sad waltz!")


def call(place: Path, prompts: tuple[str, ...] = PROMPTS, **options: Any) -> dict[str, dict[int, Path]]:
    stated = {"command": [sys.executable, str(GENERATOR)], **options}
    external = ExternalSpec.model_validate(stated)
    workplace = Workplace(place / "external", place / "clips")
    return generate_external(external, prompts, GENERATION, workplace, SilentProgress())


def read_requests(place: Path) -> list[dict[str, Any]]:
    """The requests that the generator has seen, in order."""
    return [json.loads(line) for line in (place / "requests.jsonl").read_text(encoding="utf-8").splitlines()]


def keep_requests(place: Path, **settings: Any) -> dict[str, Any]:
    return {"settings": {"requests": str(place / "requests.jsonl"), **settings}}


def test_a_command_gets_a_request_per_prompt_and_writes_its_clips(tmp_path: Path) -> None:
    found = call(tmp_path, **keep_requests(tmp_path))
    assert {prompt: sorted(files) for prompt, files in found.items()} == {key: [0, 1, 2] for key in PROMPTS}
    first, second = read_requests(tmp_path)
    assert first["schema"] == 1
    assert first["clip_s"] == 0.5
    [asked] = first["prompts"]
    assert (asked["prompt"], asked["slug"], asked["n_clips"]) == ("warm lofi", "warm-lofi", 3)
    assert [clip["index"] for clip in asked["clips"]] == [0, 1, 2]
    seeds = [clip["seed"] for request in (first, second) for clip in request["prompts"][0]["clips"]]
    assert len(set(seeds)) == 6
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_a_command_per_run_gets_all_prompts_at_once(tmp_path: Path) -> None:
    found = call(tmp_path, per="run", **keep_requests(tmp_path))
    assert sum(map(len, found.values())) == 6
    [request] = read_requests(tmp_path)
    assert [one["prompt"] for one in request["prompts"]] == list(PROMPTS)


def test_a_crash_keeps_whole_clips_and_the_next_call_asks_for_the_others_with_their_seeds(
    tmp_path: Path,
) -> None:
    with pytest.raises(ExternalError) as caught:
        call(tmp_path, PROMPTS[:1], **keep_requests(tmp_path, crash_after=2))
    said = str(caught.value)
    assert "for `warm lofi` ended with exit code 1 (" in said
    assert "RuntimeError: out of sines); 2 of the 3 clips that it was asked for are whole and kept" in said
    assert "Traceback" in caught.value.__notes__[0]
    kept = {path.name: path.read_bytes() for path in (tmp_path / "external" / "warm-lofi").glob("00[01].wav")}
    assert len(kept) == 2
    found = call(tmp_path, PROMPTS[:1], **keep_requests(tmp_path))
    assert sorted(found["warm lofi"]) == [0, 1, 2]
    assert all(
        (tmp_path / "external" / "warm-lofi" / name).read_bytes() == data for name, data in kept.items()
    )
    first, second = (request["prompts"][0]["clips"] for request in read_requests(tmp_path))
    assert second == first[2:]


def test_clips_that_were_taken_over_are_not_asked_for(tmp_path: Path) -> None:
    taken = tmp_path / "clips" / "warm-lofi" / "001.wav"
    taken.parent.mkdir(parents=True)
    taken.touch()
    found = call(tmp_path, PROMPTS[:1], **keep_requests(tmp_path))
    assert sorted(found["warm lofi"]) == [0, 2]


def test_a_time_limit_ends_the_command_and_what_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with pytest.raises(ExternalError, match=r"did not end within 3 s.*; 1 of the 3 clips .* raise timeout_s"):
        call(tmp_path, PROMPTS[:1], timeout_s=3, settings={"hang_after": 1, "pids": str(pids)})
    started = [int(pid) for pid in pids.read_text(encoding="utf-8").split()]
    assert len(started) == 2  # the command and its child
    _, alive = psutil.wait_procs(
        [psutil.Process(pid) for pid in started if psutil.pid_exists(pid)], timeout=10
    )
    assert alive == []


def test_a_command_of_a_killed_attempt_is_ended_before_the_next_one(tmp_path: Path) -> None:
    raw = tmp_path / "external"
    raw.mkdir()
    former = psutil.Popen(["sleep", "600"], start_new_session=True)
    note = raw / "process.json"
    note.write_text(json.dumps([former.pid, former.create_time()]), encoding="utf-8")
    end_former(raw)
    assert not former.is_running()
    assert not note.exists()


def test_another_process_with_the_number_of_a_former_command_is_left_alone(tmp_path: Path) -> None:
    raw = tmp_path / "external"
    raw.mkdir()
    me = psutil.Process(os.getpid())
    (raw / "process.json").write_text(json.dumps([me.pid, me.create_time() - 1.0]), encoding="utf-8")
    end_former(raw)
    assert time.time() > me.create_time()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"skip": [1]}, "001.wav: was not written"),
        ({"nan": [1]}, "001.wav: holds NaN or infinite samples"),
        ({"short": [1]}, "001.wav: lasts 0.25 s; expected at least the 0.5 s of generation.clip_s"),
        ({"text": [1]}, "001.wav: "),
    ],
)
def test_a_clip_that_cannot_be_used_is_named_though_the_command_ended_well(
    tmp_path: Path, settings: dict[str, list[int]], words: str
) -> None:
    with pytest.raises(ExternalError) as caught:
        call(tmp_path, PROMPTS[:1], settings=settings)
    said = str(caught.value)
    assert "ended without an error, but " in said
    assert words in said
    assert "(2 of the 3 clips that it was asked for are whole and kept)" in said
    assert sorted(call(tmp_path, PROMPTS[:1])["warm lofi"]) == [0, 1, 2]  # asked again, now well


def test_silence_other_rates_and_stereo_are_clips(tmp_path: Path) -> None:
    found = call(tmp_path, PROMPTS[:1], settings={"silent": [0], "rate_hz": 22050, "channels": 2})
    info = soundfile.info(found["warm lofi"][0])
    assert (info.samplerate, info.channels) == (22050, 2)


def test_the_generator_of_the_documentation_does_what_is_asked(tmp_path: Path) -> None:
    blocks = [
        block.text for block in read_blocks(ROOT / "docs" / "external.md") if block.language == "python"
    ]
    script = tmp_path / "my_generator.py"
    script.write_text(blocks[0], encoding="utf-8")
    assert blocks[0].startswith("# my_generator.py\n")
    found = call(tmp_path, command=[sys.executable, str(script)], settings={"gain": 0.3})
    assert sum(map(len, found.values())) == 6
    audio, rate_hz = soundfile.read(found["warm lofi"][0])
    assert len(audio) == 0.5 * rate_hz
    assert abs(audio).max() == pytest.approx(0.3, abs=0.01)


def test_a_command_that_cannot_be_started_says_so(tmp_path: Path) -> None:
    with pytest.raises(ExternalError, match="`no-such-program` for `warm lofi` cannot be started"):
        call(tmp_path, PROMPTS[:1], command=["no-such-program"])
