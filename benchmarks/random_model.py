"""MusicGens with random weights: tiny ones for tests, musicgen-small's shape for benchmarks; no download.

They sound like noise; `pocket.json` next to the weights says `"trained": false`.
"""

from __future__ import annotations

import json
import math
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    EncodecConfig,
    EncodecFeatureExtractor,
    MusicgenConfig,
    MusicgenForConditionalGeneration,
    T5Config,
    T5Tokenizer,
)
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from lora_bench.models.model_info import set_token_ids
from lora_bench.models.quiet import quiet_transformers


@dataclass(frozen=True)
class MusicGenShape:
    """Sizes of a MusicGen.

    Attributes:
        width, n_layers, n_heads, ffn_width: of the decoder.
        codebook_size, n_codebooks: `n_codebooks` counts both channels' of a stereo model.
        text_width, text_layers, text_heads, text_ffn_width: of the T5 encoder.
        hop_ratios: the codec's upsampling ratios; their product is the hop.
        codec_filters, codec_width: the codec's first and last number of channels.
        dropout: the decoder's own.
    """

    width: int
    n_layers: int
    n_heads: int
    ffn_width: int
    codebook_size: int
    n_codebooks: int
    channels: int
    text_width: int
    text_layers: int
    text_heads: int
    text_ffn_width: int
    sample_rate_hz: int
    hop_ratios: tuple[int, ...]
    codec_filters: int
    codec_width: int
    max_positions: int = 2048
    dropout: float = 0.1


TINY = MusicGenShape(
    width=64, n_layers=2, n_heads=4, ffn_width=128, codebook_size=64, n_codebooks=4, channels=1,
    text_width=32, text_layers=2, text_heads=4, text_ffn_width=64,
    sample_rate_hz=1600, hop_ratios=(4, 4, 2), codec_filters=4, codec_width=16, max_positions=256,
)  # fmt: skip
"""For tests: 50 frames a second of 32 samples."""

TINY_STEREO = MusicGenShape(
    width=64, n_layers=2, n_heads=4, ffn_width=128, codebook_size=64, n_codebooks=8, channels=2,
    text_width=64, text_layers=2, text_heads=4, text_ffn_width=64,
    sample_rate_hz=1600, hop_ratios=(4, 4, 2), codec_filters=4, codec_width=16, max_positions=256,
)  # fmt: skip
"""For tests: stereo, and a text encoder of the decoder's width (no `enc_to_dec_proj`)."""

SMALL = MusicGenShape(
    width=1024, n_layers=24, n_heads=16, ffn_width=4096, codebook_size=2048, n_codebooks=4, channels=1,
    text_width=768, text_layers=12, text_heads=12, text_ffn_width=3072,
    sample_rate_hz=32_000, hop_ratios=(8, 5, 4, 4), codec_filters=64, codec_width=128,
)  # fmt: skip
"""facebook/musicgen-small's: 420 M parameters in the decoder, 110 M in the text encoder."""


def build_tokenizer() -> T5Tokenizer:
    """Build a tokenizer of single characters."""
    special = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces = [(char, -3.0) for char in string.ascii_letters + string.digits + string.punctuation]
    return T5Tokenizer(vocab=[*special, *pieces], extra_ids=0)


def build_random_musicgen(shape: MusicGenShape, seed: int = 0) -> MusicgenForConditionalGeneration:
    """Build a MusicGen of `shape` with random weights, in eval mode, its token ids set."""
    n_quantizers = shape.n_codebooks // shape.channels
    hop = math.prod(shape.hop_ratios)
    codebook_bits = (shape.codebook_size - 1).bit_length()
    codec = EncodecConfig(
        sampling_rate=shape.sample_rate_hz,
        audio_channels=1,
        normalize=False,
        chunk_length_s=None,
        overlap=None,
        upsampling_ratios=list(shape.hop_ratios),
        num_filters=shape.codec_filters,
        hidden_size=shape.codec_width,
        codebook_dim=shape.codec_width,
        codebook_size=shape.codebook_size,
        use_causal_conv=False,
        target_bandwidths=[shape.sample_rate_hz / hop * codebook_bits * n_quantizers / 1000],
    )
    text = T5Config(
        vocab_size=max(128, len(build_tokenizer())),
        d_model=shape.text_width,
        d_kv=shape.text_width // shape.text_heads,
        d_ff=shape.text_ffn_width,
        num_layers=shape.text_layers,
        num_heads=shape.text_heads,
        use_cache=False,
    )
    start_id = shape.codebook_size
    decoder = MusicgenDecoderConfig(
        vocab_size=shape.codebook_size,
        max_position_embeddings=shape.max_positions,
        num_hidden_layers=shape.n_layers,
        ffn_dim=shape.ffn_width,
        num_attention_heads=shape.n_heads,
        hidden_size=shape.width,
        num_codebooks=shape.n_codebooks,
        audio_channels=shape.channels,
        dropout=shape.dropout,
        pad_token_id=start_id,
        bos_token_id=start_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MusicgenForConditionalGeneration(
            MusicgenConfig(
                text_encoder=text.to_dict(), audio_encoder=codec.to_dict(), decoder=decoder.to_dict()
            )
        )
        _spread_codec(network)
    set_token_ids(network)
    network.eval()
    return network


def _spread_codec(network: MusicgenForConditionalGeneration) -> None:
    """Fill the codebooks at random: fresh ones are all zero, so that every frame would get code 0."""
    for layer in cast("Any", network.audio_encoder).quantizer.layers:
        layer.codebook.embed.normal_(std=0.1)


def save_random_musicgen(folder: Path, shape: MusicGenShape, seed: int = 0) -> Path:
    """Write a random model in the form that `load_model` reads.

    Returns:
        `folder`.
    """
    with quiet_transformers():
        network = build_random_musicgen(shape, seed)
        network.save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    EncodecFeatureExtractor(feature_size=1, sampling_rate=shape.sample_rate_hz).save_pretrained(folder)
    facts = {"trained": False, "note": "random weights"}
    (folder / "pocket.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    return folder
