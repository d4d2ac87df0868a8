"""Initial values of kind eva: the main directions of each layer's inputs, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from support.melody_model import save_random_melody
from torch import nn

from benchmarks.random_model import TINY
from lora_bench.errors import TrainingError
from lora_bench.forecast.adapters import list_problems
from lora_bench.forecast.shapes import find_shape
from lora_bench.models import load_model
from lora_bench.models.base import MusicModel
from lora_bench.models.eva import initialize_eva
from lora_bench.models.lora import adapted_modules
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import LoraSpec, ModelSpec

RANK = 4
SEVERAL = (
    "a song with drums",
    "calm piano music",
    "fast strings",
    "a loud choir",
    "an old organ",
    "two flutes",
)


def list_passes(model: MusicModel, captions: tuple[str, ...] = SEVERAL) -> list[Callable[[], object]]:
    texts = model.encode_text(captions)
    shape = (6, model.info.n_codebooks, 24)
    codes = torch.randint(0, model.info.codebook_size, shape, generator=torch.Generator().manual_seed(0))
    return [
        partial(model.training_loss, codes[[n]], torch.tensor([24 - n]), [texts[n % len(texts)]])
        for n in range(len(codes))
    ]


def read_down(model: MusicModel) -> dict[str, torch.Tensor]:
    return {
        name: each.detach().clone() for name, each in model.adapter_parameters().items() if "lora_A" in name
    }


def observe_inputs(model: MusicModel, passes: list[Callable[[], object]]) -> dict[str, np.ndarray]:
    """Return all inputs [n, n_in] of the adapted layers."""
    found: dict[str, list[torch.Tensor]] = {}

    def keep(name: str, _: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        found.setdefault(name, []).append(inputs[0].flatten(0, -2))

    modules = adapted_modules(model.peft_model)
    handles = [module.register_forward_pre_hook(partial(keep, name)) for name, module in modules.items()]
    with torch.no_grad():
        for run in passes:
            run()
    for handle in handles:
        handle.remove()
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}


def initialize(model: MusicModel, passes: list[Callable[[], object]], rank: int = RANK) -> None:
    model.inject_lora(LoraSpec(kind="eva", rank=rank, targets="all"), seed=0)
    initialize_eva(model.peft_model, passes)


def test_rows_of_a_span_the_main_directions_of_the_inputs(tiny: TransformersMusicGen) -> None:
    passes = list_passes(tiny)
    initialize(tiny, passes)
    inputs = observe_inputs(tiny, passes)
    assert len(inputs) == len(tiny.linear_module_names())
    for name, rows in inputs.items():
        down = tiny.adapter_parameters()[f"{name}.lora_A.default.weight"].detach().double().numpy()
        centred = rows - rows.mean(axis=0)
        best = (np.linalg.svd(centred, compute_uv=False)[:RANK] ** 2).sum()
        # `eva` samples the inputs, so its directions explain a little less than the best ones
        assert ((centred @ down.T) ** 2).sum() > 0.97 * best, name
        np.testing.assert_allclose(down @ down.T, np.eye(RANK), atol=1e-4)


def test_initial_update_is_zero_and_the_base_model_unchanged(tiny: TransformersMusicGen) -> None:
    weights = {name: value.clone() for name, value in tiny.network.state_dict().items()}
    passes = list_passes(tiny)
    before = [run() for run in passes]
    initialize(tiny, passes)
    assert all(value.requires_grad for value in tiny.adapter_parameters().values())
    assert [run() for run in passes] == before
    tiny.remove_adapter()
    assert all(torch.equal(value, weights[name]) for name, value in tiny.network.state_dict().items())


def test_layers_whose_inputs_have_fewer_directions_keep_plain_rows_for_the_rest(
    tiny: TransformersMusicGen,
) -> None:
    tiny.inject_lora(LoraSpec(kind="eva", rank=RANK, targets="all"), seed=0)
    plain = read_down(tiny)
    n_tokens = len(tiny.encode_text(["go"])[0])
    assert n_tokens <= RANK
    initialize_eva(tiny.peft_model, list_passes(tiny, ("go",)))
    for name, value in read_down(tiny).items():
        reads_text = "encoder_attn.k" in name or "encoder_attn.v" in name or "enc_to_dec" in name
        n_kept = sum(torch.equal(one, other) for one, other in zip(value, plain[name], strict=True))
        assert n_kept == (RANK - (n_tokens - 1) if reads_text else 0), name


@pytest.mark.parametrize("library", ["audiocraft", "melody"])
def test_other_backends_begin_the_same_way(
    tiny: TransformersMusicGen, tiny_folder: Path, tmp_path: Path, library: str
) -> None:
    if library == "audiocraft" and find_spec("audiocraft") is None:
        pytest.skip("the audiocraft extra is not installed")
    if library == "audiocraft":
        spec = ModelSpec(id=str(tiny_folder), backend="audiocraft")
    else:
        spec = ModelSpec(id=str(save_random_melody(tmp_path / "melody", TINY)))
    model = load_model(spec, device="cpu")
    initialize(model, list_passes(model))
    if library == "audiocraft":
        initialize(tiny, list_passes(tiny))
        found, expected = read_down(model), read_down(tiny)
        assert set(found) == set(expected)
        for name, value in found.items():
            torch.testing.assert_close(value @ expected[name].T, torch.eye(RANK), rtol=0, atol=1e-2, msg=name)
    for value in read_down(model).values():
        torch.testing.assert_close(value @ value.T, torch.eye(RANK), rtol=0, atol=1e-4)


def test_a_decomposition_that_does_not_settle_is_an_error_and_leaves_nothing_behind(
    tiny: TransformersMusicGen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lora_bench.models.eva.N_PASSES", 1)
    with pytest.raises(TrainingError, match=r"did not settle in 1 passes; lower lora\.rank"):
        initialize(tiny, list_passes(tiny))
    for module in tiny.network.modules():
        assert not vars(module)["_forward_hooks"]
        assert not vars(module)["_forward_pre_hooks"]


def test_more_than_half_of_a_targets_inputs_is_refused_before_anything_runs(tiny_folder: Path) -> None:
    shape = find_shape(ModelSpec(id=str(tiny_folder)))
    assert shape is not None
    assert list_problems(LoraSpec(kind="eva", rank=16, targets="conditioning"), shape) == []
    (problem,) = list_problems(LoraSpec(kind="eva", rank=17, targets="conditioning"), shape)
    assert problem == (
        "lora.rank 17 is more than half of the 32 inputs of a target, which is as far as PEFT's decomposition for kind "
        "`eva` goes; choose a lower rank"
    )
