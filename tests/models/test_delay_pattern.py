from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lora_bench.models.delay_pattern import decoder_inputs, delay_codes, find_delays, undelay_codes

PAD = 99


def test_delays_of_mono_and_stereo() -> None:
    assert find_delays(4, 1) == (0, 1, 2, 3)
    assert find_delays(8, 2) == (0, 0, 1, 1, 2, 2, 3, 3)


def test_delay_pattern_drops_no_frame_of_any_codebook() -> None:
    codes = torch.arange(12).view(1, 4, 3)
    delayed = delay_codes(codes, torch.tensor([3]), (0, 1, 2, 3), PAD)
    assert delayed[0].tolist() == [
        [0, 1, 2, PAD, PAD, PAD],
        [PAD, 3, 4, 5, PAD, PAD],
        [PAD, PAD, 6, 7, 8, PAD],
        [PAD, PAD, PAD, 9, 10, 11],
    ]


def test_padding_frames_become_the_pad_token() -> None:
    codes = torch.arange(8).view(1, 2, 4)
    delayed = delay_codes(codes, torch.tensor([2]), (0, 1), PAD)
    assert delayed[0].tolist() == [[0, 1, PAD, PAD, PAD], [PAD, 4, 5, PAD, PAD]]


def test_decoder_reads_one_position_late() -> None:
    delayed = torch.tensor([[[5, 6, 7]]])
    assert decoder_inputs(delayed, PAD).tolist() == [[[PAD, 5, 6]]]


@settings(deadline=None)
@given(
    n_clips=st.integers(1, 3),
    n_codebooks=st.integers(1, 4),
    channels=st.sampled_from([1, 2]),
    n_frames=st.integers(1, 12),
    seed=st.integers(0, 2**16),
)
def test_undelaying_brings_every_code_back(
    n_clips: int, n_codebooks: int, channels: int, n_frames: int, seed: int
) -> None:
    n_codebooks *= channels
    codes = torch.randint(
        0, PAD, (n_clips, n_codebooks, n_frames), generator=torch.Generator().manual_seed(seed)
    )
    delays = find_delays(n_codebooks, channels)
    delayed = delay_codes(codes, torch.full((n_clips,), n_frames), delays, PAD)
    assert delayed.shape[-1] == n_frames + max(delays)
    assert int((delayed == PAD).sum()) == n_clips * n_codebooks * max(delays)
    assert torch.equal(undelay_codes(delayed, delays), codes)
