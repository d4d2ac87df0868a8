"""Numbers in the parts of a MusicGen that are never adapted: its T5 text encoder and its EnCodec.

Counted from their configs after transformers' `modeling_t5.py` and `modeling_encodec.py`; the tests compare the
counts with built networks.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TextEncoderSizes:
    """Sizes in a `T5Config`; the defaults are those of the T5 of all MusicGens that Meta published."""

    vocab_size: int = 32_128
    d_model: int = 768
    d_kv: int = 64
    d_ff: int = 3072
    num_layers: int = 12
    num_heads: int = 12
    relative_attention_num_buckets: int = 32


@dataclass(frozen=True)
class CodecSizes:
    """Sizes in an `EncodecConfig`, with its defaults."""

    audio_channels: int = 1
    num_filters: int = 32
    hidden_size: int = 128
    upsampling_ratios: tuple[int, ...] = (8, 5, 4, 2)
    codebook_size: int = 1024
    codebook_dim: int | None = None
    kernel_size: int = 7
    last_kernel_size: int = 7
    residual_kernel_size: int = 3
    num_residual_layers: int = 1
    num_lstm_layers: int = 2
    compress: int = 2
    use_conv_shortcut: bool = True


ENCODEC_32KHZ = CodecSizes(
    num_filters=64, upsampling_ratios=(8, 5, 4, 4), codebook_size=2048, use_conv_shortcut=False
)
"""facebook/encodec_32khz, the codec of all MusicGens that Meta published."""


def count_text_encoder(t5: TextEncoderSizes) -> int:
    """Count a T5 encoder: embeddings, attention, feed-forward (not gated), norms and one table of distances."""
    width, inner = t5.d_model, t5.num_heads * t5.d_kv
    layer = 4 * width * inner + 2 * width * t5.d_ff + 2 * width
    distances = t5.relative_attention_num_buckets * t5.num_heads
    return t5.vocab_size * width + t5.num_layers * layer + distances + width


def count_codec(codec: CodecSizes, n_codebooks: int) -> int:
    """Count an EnCodec with weight norm and `n_codebooks` a channel, with the tables that only its training uses."""
    size, kernel, ends = codec.hidden_size, codec.kernel_size, codec.last_kernel_size
    channels = n_filters = codec.num_filters
    total = 0
    for ratio in reversed(codec.upsampling_ratios):  # down, and the same way up again
        down = _count_convolution(channels, 2 * channels, 2 * ratio)
        up = down - channels  # one bias fewer per channel
        total += down + up + 2 * _count_residual(codec, channels)
        channels *= 2
    total += _count_convolution(codec.audio_channels, n_filters, kernel)
    total += _count_convolution(channels, size, ends)
    total += _count_convolution(size, channels, kernel)
    total += _count_convolution(n_filters, codec.audio_channels, ends)
    lstm = codec.num_lstm_layers * (8 * channels * channels + 8 * channels)
    entry = 2 * (codec.codebook_dim or size) + 1  # the code, its running mean, how often it was used
    return total + 2 * lstm + n_codebooks * codec.codebook_size * entry


def _count_residual(codec: CodecSizes, channels: int) -> int:
    hidden = channels // codec.compress
    block = _count_convolution(channels, hidden, codec.residual_kernel_size)
    block += _count_convolution(hidden, channels, 1)
    if codec.use_conv_shortcut:
        block += _count_convolution(channels, channels, 1)
    return codec.num_residual_layers * block


def _count_convolution(n_in: int, n_out: int, kernel: int) -> int:
    """Directions, a length and a bias per output channel."""
    return n_in * n_out * kernel + 2 * n_out
