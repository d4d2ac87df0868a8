"""GPUs that torch can use, GPUs that it cannot, and what a trial is allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lora_bench.errors import ResourceError
from lora_bench.machine import gpus
from lora_bench.machine.gpus import Gpus, is_supported, limit_gpus, require_gpus, usable_gpus
from lora_bench.models.device import choose_device

WHEEL = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
PROC_VERSION = (
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Thu Jun  5 2025\nGCC version:  gcc version 12.2.0\n"
)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A driver 535 that counts one GPU, which CUDA 13 cannot use."""
    place = tmp_path / "version"
    place.write_text(PROC_VERSION.format("535.104.05"), encoding="utf-8")
    monkeypatch.setattr(gpus, "DRIVER_VERSION", place)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return place


@pytest.fixture
def p100(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a P100, which the wheel is not built for, and an A100."""
    names = {0: "Tesla P100-PCIE-16GB", 1: "NVIDIA A100-SXM4-80GB"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: WHEEL)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: names[index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: ((6, 0), (8, 0))[index])


@pytest.mark.usefixtures("driver")
def test_a_gpu_of_a_too_old_driver_does_not_count_and_the_driver_is_named() -> None:
    found = usable_gpus()
    assert not found.names
    assert found.problem == (
        f"driver 535.104.05 is too old: torch {torch.__version__} is built for CUDA 13.0, which needs NVIDIA driver 580 "
        "or later; update the driver, or install a torch for CUDA 12 (`make cuda12` does it in a checkout)"
    )
    with pytest.raises(
        ResourceError, match=r"resources\.gpu is 1, but torch sees 0 GPUs .*driver 535.*gpu=0`"
    ):
        require_gpus(1)
    with pytest.raises(ResourceError, match=r"device 'cuda': this machine has 0 usable GPUs \(driver 535"):
        choose_device("cuda")


@pytest.mark.parametrize(
    ("version", "mend"),
    [("470.82.01", "or install a torch for CUDA 11"), ("390.157", "update the driver")],
)
def test_the_mend_for_an_old_driver_is_one_that_it_can_run(driver: Path, version: str, mend: str) -> None:
    driver.write_text(PROC_VERSION.format(version), encoding="utf-8")
    assert str(usable_gpus().problem).endswith(mend)


def test_a_recent_driver_that_does_not_start_says_why(driver: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver.write_text(PROC_VERSION.format("580.65.06"), encoding="utf-8")

    def fail() -> None:
        raise RuntimeError("No CUDA GPUs are available")

    monkeypatch.setattr(torch.cuda, "init", fail)
    problem = str(usable_gpus().problem)
    assert "(driver 580.65.06), but CUDA does not start: No CUDA GPUs are available;" in problem


def test_a_torch_without_cuda_is_named_where_there_is_a_driver(
    driver: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "is built without CUDA; install a build with CUDA" in str(usable_gpus().problem)
    driver.unlink()
    assert usable_gpus() == Gpus({})


@pytest.mark.usefixtures("p100")
def test_a_card_that_torch_is_not_built_for_does_not_count() -> None:
    found = usable_gpus()
    assert found.names == {1: "NVIDIA A100-SXM4-80GB"}
    assert "GPU 0 (Tesla P100-PCIE-16GB) has compute capability 6.0, but torch" in str(found.problem)
    assert str(choose_device("auto")) == "cuda:1"
    assert str(choose_device("cuda:1")) == "cuda:1"
    with pytest.raises(ResourceError, match=r"device 'cuda:0'.*compute capability 6\.0"):
        choose_device("cuda:0")


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((8, 9), WHEEL, True),
        ((7, 0), WHEEL, False),
        ((11, 0), WHEEL, False),
        ((11, 0), [*WHEEL, "compute_90"], True),
        ((9, 0), ["sm_90a"], True),
        ((6, 1), [], False),
    ],
)
def test_machine_code_runs_on_its_major_version_and_translated_code_on_later_ones(
    capability: tuple[int, int], architectures: list[str], expected: bool
) -> None:
    assert is_supported(capability, architectures) is expected


def test_auto_is_what_the_resources_of_a_trial_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "usable_gpus", lambda: Gpus({0: "H100"}))
    assert choose_device("auto").type == "cuda"
    with limit_gpus(0):
        assert choose_device("auto").type == "cpu"
        with limit_gpus(0.5):
            assert choose_device("auto").type == "cuda"
        assert choose_device("auto").type == "cpu"
    monkeypatch.setattr(gpus, "usable_gpus", lambda: Gpus({}))
    assert choose_device("auto").type == "cpu"
    with limit_gpus(1), pytest.raises(ResourceError, match=r"resources\.gpu is 1, but torch sees 0 GPUs"):
        choose_device("auto")


def test_float32_stays_float32_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cudnn.allow_tf32 = True
    try:
        with monkeypatch.context() as patched:
            patched.setattr(gpus, "usable_gpus", lambda: Gpus({0: "H100"}))
            choose_device("auto")
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cudnn.allow_tf32 = before[0]
        torch.backends.cuda.enable_cudnn_sdp(before[1])
