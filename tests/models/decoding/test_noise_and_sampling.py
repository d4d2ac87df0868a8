from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lora_bench.models.decoding.noise import draw_clip_noise, draw_noise
from lora_bench.models.decoding.sampling import code_probabilities, sample_codes


def test_noise_is_uniform_and_strictly_inside() -> None:
    noise = draw_clip_noise(0, "a song", 0, 20_000, 4).ravel()
    assert noise.min() > 0.0
    assert noise.max() < 1.0
    assert stats.kstest(noise, "uniform").pvalue > 1e-3


def test_noise_is_pinned() -> None:
    # a change of these numbers changes every published clip
    np.testing.assert_allclose(
        draw_clip_noise(0, "a song", 0, 1, 3)[0],
        [0.8982395038713796, 0.1340040023097443, 0.16478201031701245],
        rtol=0,
        atol=1e-12,
    )


def test_a_longer_clip_begins_with_the_numbers_of_a_shorter_one() -> None:
    long = draw_clip_noise(3, "a song", 7, 50, 4)
    np.testing.assert_array_equal(draw_clip_noise(3, "a song", 7, 20, 4), long[:20])


@pytest.mark.parametrize("other", [(1, "a song", 0), (0, "a song ", 0), (0, "a song", 1)])
def test_seed_prompt_and_clip_each_give_other_numbers(other: tuple[int, str, int]) -> None:
    noise = draw_clip_noise(0, "a song", 0, 500, 4)
    different = draw_clip_noise(*other, 500, 4)
    assert not np.isin(different, noise).any()
    assert abs(np.corrcoef(noise.ravel(), different.ravel())[0, 1]) < 0.1


def test_noise_of_a_clip_does_not_depend_on_its_batch() -> None:
    together = draw_noise(0, "a song", [4, 9, 2], 6, (0, 1, 2, 3))
    alone = draw_noise(0, "a song", [9], 6, (0, 1, 2, 3))
    np.testing.assert_array_equal(together[:, 1], alone[:, 0])


def test_noise_follows_the_delay_pattern() -> None:
    noise = draw_noise(0, "a song", [5], 6, (0, 0, 1, 1))
    drawn = draw_clip_noise(0, "a song", 5, 6, 4)
    assert noise.shape == (7, 1, 4)
    np.testing.assert_array_equal(noise[:6, 0, :2], drawn[:, :2])
    np.testing.assert_array_equal(noise[1:, 0, 2:], drawn[:, 2:])


def test_top_1_is_the_most_probable_code_whatever_the_noise() -> None:
    logits = torch.randn(5, 4, 30, generator=torch.Generator().manual_seed(0))
    uniform = torch.rand(5, 4, dtype=torch.float64)
    assert torch.equal(sample_codes(logits, uniform, temperature=2.0, top_k=1), logits.argmax(-1))


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, None), (1.0, 7), (0.5, 7), (2.0, 250)])
def test_drawn_codes_follow_the_softmax(temperature: float, top_k: int | None) -> None:
    logits = torch.randn(40, generator=torch.Generator().manual_seed(0)) * 2
    n = 40_000
    uniform = torch.from_numpy(draw_clip_noise(0, "x", 0, n, 1)[:, 0])
    drawn = sample_codes(logits.expand(n, -1), uniform, temperature=temperature, top_k=top_k)
    scaled = logits.double() / temperature
    if top_k is not None and top_k < 40:
        scaled[scaled < scaled.sort().values[-top_k]] = -torch.inf
    expected = scaled.softmax(-1).numpy() * n
    counts = np.bincount(drawn.numpy(), minlength=40)
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    assert stats.chisquare(counts[kept], expected[kept] / expected[kept].sum() * n).pvalue > 1e-3


@settings(deadline=None)
@given(
    n_codes=st.integers(2, 40),
    top_k=st.integers(2, 40),
    uniform=st.floats(0.0, 1.0, exclude_min=True, exclude_max=True),
    seed=st.integers(0, 1000),
    scale=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
)
def test_a_drawn_code_has_a_probability_above_zero(
    n_codes: int, top_k: int, uniform: float, seed: int, scale: float
) -> None:
    logits = torch.randn(n_codes, generator=torch.Generator().manual_seed(seed)) * scale
    number = torch.tensor(uniform, dtype=torch.float64)
    code = int(sample_codes(logits, number, temperature=1.0, top_k=top_k))
    assert 0 <= code < n_codes
    assert code_probabilities(logits, temperature=1.0, top_k=top_k)[code] > 0


@pytest.mark.parametrize("uniform", [2.0**-53, 1.0 - 2.0**-53])
def test_the_ends_of_the_noise_give_codes_that_top_k_allows(uniform: float) -> None:
    logits = torch.full((1024,), -5.0)
    logits[100:110] = 5.0
    code = int(sample_codes(logits, torch.tensor(uniform, dtype=torch.float64), temperature=1.0, top_k=10))
    assert 100 <= code < 110


def test_a_small_change_of_the_logits_mostly_keeps_the_code() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5000, 64, generator=generator)
    uniform = torch.rand(5000, dtype=torch.float64, generator=generator)
    near = logits + 1e-3 * torch.randn(5000, 64, generator=generator)
    kept = sample_codes(logits, uniform, temperature=1.0, top_k=None) == sample_codes(
        near, uniform, temperature=1.0, top_k=None
    )
    assert float(kept.float().mean()) > 0.99
