"""The training loss against transformers' own, and what it must not depend on."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from lora_bench.models.delay_pattern import delay_codes
from lora_bench.models.transformers_musicgen import TransformersMusicGen
from lora_bench.spec.schema import LoraSpec


def make_codes(model: TransformersMusicGen, n_clips: int, n_frames: int, seed: int = 0) -> torch.Tensor:
    shape = (n_clips, model.info.n_codebooks, n_frames)
    return torch.randint(0, model.info.codebook_size, shape, generator=torch.Generator().manual_seed(seed))


def transformers_loss(
    model: TransformersMusicGen, codes: torch.Tensor, valid: list[int], captions: list[str | None]
) -> torch.Tensor:
    """The library's loss: delayed labels [B, T, K], -100 where masked, zero mask for the null condition."""
    states = model.encode_text([caption or "" for caption in captions])
    length = max(len(state) for state in states)
    text = torch.zeros(len(states), length, states[0].shape[-1])
    mask = torch.zeros(len(states), length, dtype=torch.long)
    for row, (state, caption) in enumerate(zip(states, captions, strict=True)):
        if caption is not None:
            text[row, : len(state)] = state
            mask[row, : len(state)] = 1
    start_id = model.info.codebook_size
    labels = delay_codes(codes, torch.tensor(valid), model.info.delays, start_id).transpose(1, 2)
    return model.network(encoder_outputs=(text,), attention_mask=mask, labels=labels).loss


@pytest.mark.parametrize(
    ("valid", "captions"),
    [
        ([12], ["a song"]),
        ([12, 12, 12], ["a song", "a song", "a song"]),
        ([12, 7, 3], ["a song", "a much longer song", "b"]),
        ([12, 7], [None, "a song"]),
        ([9, 7], [None, None]),
    ],
)
def test_loss_equals_that_of_transformers_with_delayed_labels(
    tiny: TransformersMusicGen, valid: list[int], captions: list[str | None]
) -> None:
    codes = make_codes(tiny, len(valid), 12)
    states = [None if caption is None else tiny.encode_text([caption])[0] for caption in captions]
    ours = tiny.training_loss(codes, torch.tensor(valid), states)
    theirs = transformers_loss(tiny, codes, valid, captions)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_stereo_loss_equals_that_of_transformers(stereo: TransformersMusicGen) -> None:
    codes = make_codes(stereo, 2, 10)
    ours = stereo.training_loss(codes, torch.tensor([10, 6]), stereo.encode_text(["a song", "b"]))
    torch.testing.assert_close(
        ours, transformers_loss(stereo, codes, [10, 6], ["a song", "b"]), rtol=1e-5, atol=1e-6
    )


def test_undelayed_labels_give_another_loss_and_transformers_accepts_them_silently(
    tiny: TransformersMusicGen,
) -> None:
    codes = make_codes(tiny, 1, 12)
    state = tiny.encode_text(["a song"])
    wrong = tiny.network(
        encoder_outputs=(state[0][None],),
        attention_mask=torch.ones(1, len(state[0])),
        labels=codes.transpose(1, 2),
    ).loss
    assert abs(float(wrong) - float(tiny.training_loss(codes, torch.tensor([12]), state))) > 1e-3


def test_loss_counts_every_frame_of_every_codebook(tiny: TransformersMusicGen) -> None:
    # an independent count: the gradient of the mean with respect to each code's own log-probability
    codes = make_codes(tiny, 2, 9)
    counted: list[int] = []
    original = F.cross_entropy

    def count(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        counted.append(len(target))
        return original(logits, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "cross_entropy", count)
        tiny.training_loss(codes, torch.tensor([9, 5]), [None, None])
    assert counted == [14] * 4


def test_the_last_frame_of_the_last_codebook_is_learnt(tiny: TransformersMusicGen) -> None:
    codes = make_codes(tiny, 1, 9)
    changed = codes.clone()
    changed[0, -1, -1] = (changed[0, -1, -1] + 1) % tiny.info.codebook_size
    valid = torch.tensor([9])
    assert not torch.equal(
        tiny.training_loss(codes, valid, [None]), tiny.training_loss(changed, valid, [None])
    )


def test_loss_does_not_depend_on_what_lies_in_the_padding(tiny: TransformersMusicGen) -> None:
    codes = make_codes(tiny, 2, 12)
    other = codes.clone()
    other[1, :, 5:] = make_codes(tiny, 1, 7, seed=9)[0]
    valid, states = torch.tensor([12, 5]), tiny.encode_text(["a", "b"])
    assert torch.equal(tiny.training_loss(codes, valid, states), tiny.training_loss(other, valid, states))


def test_loss_of_a_clip_does_not_depend_on_its_neighbours_caption_length(tiny: TransformersMusicGen) -> None:
    codes, (short, long) = make_codes(tiny, 2, 8), tiny.encode_text(["b", "a much longer caption"])
    valid = torch.tensor([8, 8])
    together = tiny.training_loss(codes, valid, [short, long])
    apart = [
        tiny.training_loss(codes[i : i + 1], valid[:1], [state]) for i, state in enumerate((short, long))
    ]
    torch.testing.assert_close(together, torch.stack(apart).mean(), rtol=1e-5, atol=1e-6)


def test_the_null_condition_gives_finite_gradients(tiny: TransformersMusicGen) -> None:
    tiny.inject_lora(LoraSpec(rank=2, targets="all"), seed=0)
    loss = tiny.training_loss(
        make_codes(tiny, 2, 8), torch.tensor([8, 8]), [None, tiny.encode_text(["a"])[0]]
    )
    loss.backward()
    for name, parameter in tiny.adapter_parameters().items():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_every_adapter_weight_gets_a_gradient(tiny: TransformersMusicGen) -> None:
    tiny.inject_lora(LoraSpec(rank=2, targets="all"), seed=0)
    tiny.training_loss(make_codes(tiny, 1, 8), torch.tensor([8]), tiny.encode_text(["a song"])).backward()
    without = [
        name
        for name, parameter in tiny.adapter_parameters().items()
        if "lora_B" in name and (parameter.grad is None or not parameter.grad.any())
    ]
    assert without == []
    assert all(not p.requires_grad for n, p in tiny.network.named_parameters() if ".lora_" not in n)


def test_training_mode_switches_only_the_adapters_dropout(tiny: TransformersMusicGen) -> None:
    # the tiny model's config has the decoder's usual dropout of 0.1
    assert tiny.network.config.decoder.dropout == 0.1
    codes, valid, states = make_codes(tiny, 1, 8), torch.tensor([8]), tiny.encode_text(["a song"])
    tiny.inject_lora(LoraSpec(rank=2, targets="all", dropout=0.0), seed=0)
    calm = tiny.training_loss(codes, valid, states)
    tiny.set_training(True)
    assert torch.equal(tiny.training_loss(codes, valid, states), calm)
    assert not tiny.network.text_encoder.training
    assert not tiny.network.audio_encoder.training
    tiny.set_training(False)
    assert not any(module.training for module in tiny.network.modules())


def test_gradient_checkpointing_changes_no_gradient(tiny: TransformersMusicGen) -> None:
    codes, valid, states = make_codes(tiny, 2, 8), torch.tensor([8, 6]), tiny.encode_text(["a song", "b"])
    gradients: list[list[torch.Tensor]] = []
    saved: list[int] = []
    for checkpointing in (False, True):
        tiny.inject_lora(LoraSpec(rank=2, targets="attention+ffn", dropout=0.3), seed=0)
        tiny.set_training(True, gradient_checkpointing=checkpointing)
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, s=sizes: (s.append(t.numel()), t)[1], lambda t: t
        ):
            torch.manual_seed(3)
            loss = tiny.training_loss(codes, valid, states)
        loss.backward()
        saved.append(sum(sizes))
        gradients.append([p.grad.clone() for p in tiny.adapter_parameters().values() if p.grad is not None])
    assert saved[1] < saved[0] / 2
    for plain, checkpointed in zip(*gradients, strict=True):
        assert torch.equal(plain, checkpointed)
    tiny.set_training(False)
