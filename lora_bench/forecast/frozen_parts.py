"""Numbers in the parts of a MusicGen that are never adapted: its T5 text encoder and its EnCodec.

Counted from their configs after transformers' `modeling_t5.py` and `modeling_encodec.py`; the tests compare the
counts with built networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]

T5_BASE: Json = {
    "vocab_size": 32_128, "d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_heads": 12,
}  # fmt: skip
"""The text encoder of all MusicGens that Meta published."""
ENCODEC_32KHZ: Json = {
    "num_filters": 64, "hidden_size": 128, "upsampling_ratios": (8, 5, 4, 4), "codebook_size": 2048,
    "use_conv_shortcut": False,
}  # fmt: skip
"""Their codec, facebook/encodec_32khz, where it differs from `ENCODEC_DEFAULTS`."""
ENCODEC_DEFAULTS: Json = {
    "audio_channels": 1, "num_filters": 32, "hidden_size": 128, "upsampling_ratios": (8, 5, 4, 2),
    "codebook_size": 1024, "codebook_dim": None, "kernel_size": 7, "last_kernel_size": 7,
    "residual_kernel_size": 3, "num_residual_layers": 1, "num_lstm_layers": 2, "compress": 2,
    "use_conv_shortcut": True,
}  # fmt: skip
"""`EncodecConfig`'s own, for what a config leaves out."""
N_DISTANCE_BUCKETS = 32  # T5Config.relative_attention_num_buckets


def count_text_encoder(config: Json) -> int:
    """Numbers in a T5 encoder: embeddings, attention, feed-forward (not gated), norms and one table of distances."""
    t5 = {**T5_BASE, **config}
    width, inner = int(t5["d_model"]), int(t5["num_heads"]) * int(t5["d_kv"])
    layer = 4 * width * inner + 2 * width * int(t5["d_ff"]) + 2 * width
    distances = int(t5.get("relative_attention_num_buckets", N_DISTANCE_BUCKETS)) * int(t5["num_heads"])
    return int(t5["vocab_size"]) * width + int(t5["num_layers"]) * layer + distances + width


def count_codec(config: Json, n_codebooks: int) -> int:
    """Numbers in an EnCodec with weight norm, the tables that only its own training would use included.

    Args:
        config: an `EncodecConfig`.
        n_codebooks: of one channel.
    """
    codec = {**ENCODEC_DEFAULTS, **config}
    size, kernel = int(codec["hidden_size"]), int(codec["kernel_size"])
    channels = n_filters = int(codec["num_filters"])
    total = 0
    for ratio in reversed(codec["upsampling_ratios"]):  # down, and the same way up again
        down = _count_convolution(channels, 2 * channels, 2 * int(ratio))
        up = (
            _count_convolution(channels, 2 * channels, 2 * int(ratio)) - channels
        )  # one bias fewer per channel
        total += down + up + 2 * _count_residual(codec, channels)
        channels *= 2
    ends = int(codec["last_kernel_size"])
    total += _count_convolution(int(codec["audio_channels"]), n_filters, kernel)
    total += _count_convolution(channels, size, ends)
    total += _count_convolution(size, channels, kernel)
    total += _count_convolution(n_filters, int(codec["audio_channels"]), ends)
    lstm = int(codec["num_lstm_layers"]) * (8 * channels * channels + 8 * channels)
    entry = 2 * int(codec["codebook_dim"] or size) + 1  # the code, its running mean, how often it was used
    return total + 2 * lstm + n_codebooks * int(codec["codebook_size"]) * entry


def _count_residual(codec: Json, channels: int) -> int:
    hidden = channels // int(codec["compress"])
    block = _count_convolution(channels, hidden, int(codec["residual_kernel_size"]))
    block += _count_convolution(hidden, channels, 1)
    if codec["use_conv_shortcut"]:
        block += _count_convolution(channels, channels, 1)
    return int(codec["num_residual_layers"]) * block


def _count_convolution(n_in: int, n_out: int, kernel: int) -> int:
    """Directions, a length and a bias per output channel."""
    return n_in * n_out * kernel + 2 * n_out
