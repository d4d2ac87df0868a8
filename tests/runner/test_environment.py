"""What a run notes of the machine."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lora_bench.runner.environment import describe_environment


def test_the_environment_names_what_scores_depend_on() -> None:
    found = describe_environment()
    assert found.cpu
    assert found.packages["torch"]


@pytest.mark.parametrize("name", ["default", "avx2"])
def test_the_instruction_set_is_the_one_that_torch_uses(name: str) -> None:
    """Not the processor's widest: a variable can make torch use a narrower one."""
    code = (
        "import torch; from lora_bench.runner.environment import describe_environment as f; "
        "print(f().instruction_set, torch.__config__.show())"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"ATEN_CPU_CAPABILITY": name}
    )  # fmt: skip
    instruction_set, _, config = run.stdout.partition(" ")
    assert f"CPU capability usage: {instruction_set}\n" in config
    assert instruction_set.isupper()
