"""The pocket model's sizes, and functions that build it untrained.

Axes: `B` batch, `K` codebook, `T` frame, `D` hidden.
"""

import math
from typing import Any

from transformers import (
    EncodecConfig,
    EncodecModel,
    MusicgenConfig,
    MusicgenForConditionalGeneration,
    T5Config,
)
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from lora_bench.models import model_info

SAMPLE_RATE_HZ = 16_000  # half of MusicGen's: twice the music for the same computation
# hop 320 samples: 50 frames a second, as MusicGen's; the encoder's first stride is 8, which is fast on a CPU
RATIOS = (2, 4, 5, 8)
HOP = 320
FRAME_RATE_HZ = 50
N_CODEBOOKS = 4
CODEBOOK_SIZE = 1024
TEXT_VOCAB_SIZE = 1024  # the tokenizer may have fewer pieces


def build_codec_config(
    codebook_size: int = CODEBOOK_SIZE, num_filters: int = 16, num_lstm_layers: int = 1
) -> EncodecConfig:
    """Return the config of an EnCodec (by default under two million parameters) with four codebooks."""
    return EncodecConfig(
        sampling_rate=SAMPLE_RATE_HZ,
        audio_channels=1,
        normalize=False,
        chunk_length_s=None,
        overlap=None,
        upsampling_ratios=list(RATIOS),
        num_filters=num_filters,
        num_residual_layers=1,
        dilation_growth_rate=2,
        hidden_size=64,
        codebook_dim=64,
        codebook_size=codebook_size,
        kernel_size=7,
        last_kernel_size=7,
        residual_kernel_size=3,
        num_lstm_layers=num_lstm_layers,
        compress=2,
        use_causal_conv=False,
        norm_type="weight_norm",
        pad_mode="constant",
        trim_right_ratio=1.0,
        use_conv_shortcut=False,
        # exactly four codebooks: 50 frames/s x 10 bits (of 1024 codes) are 0.5 kbit/s a codebook
        target_bandwidths=[N_CODEBOOKS * FRAME_RATE_HZ * math.log2(codebook_size) / 1000],
    )


def build_text_config() -> T5Config:
    """Return the config of a T5 encoder of three layers."""
    return T5Config(
        vocab_size=TEXT_VOCAB_SIZE,
        d_model=128,
        d_kv=32,
        d_ff=512,
        num_layers=3,
        num_heads=4,
        dropout_rate=0.1,
        feed_forward_proj="relu",
        is_encoder_decoder=False,
        use_cache=False,
        pad_token_id=0,
        eos_token_id=1,
    )


def build_decoder_config(codebook_size: int = CODEBOOK_SIZE) -> MusicgenDecoderConfig:
    """Return the config of six layers of 256; start and padding are one past the last code, as in MusicGen."""
    config = MusicgenDecoderConfig(
        vocab_size=codebook_size,
        max_position_embeddings=1024,
        num_hidden_layers=6,
        ffn_dim=1024,
        num_attention_heads=4,
        hidden_size=256,
        layerdrop=0.0,
        activation_function="gelu",
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        initializer_factor=0.02,
        scale_embedding=False,
        num_codebooks=N_CODEBOOKS,
        audio_channels=1,
        pad_token_id=codebook_size,
        bos_token_id=codebook_size,
        eos_token_id=None,
        tie_word_embeddings=False,
    )
    # transformers 5 lost this attribute, which its own `forward(labels=...)` reads
    config.decoder_start_token_id = codebook_size
    return config


def build_model(codec: EncodecModel | None = None) -> MusicgenForConditionalGeneration:
    """Build the whole model with fresh weights, ready for `generate` and `forward(labels=...)`.

    Args:
        codec: A trained one to put in; None keeps a fresh one.
    """
    codec_config = build_codec_config() if codec is None else codec.config
    config = MusicgenConfig(
        text_encoder=build_text_config().to_dict(),
        audio_encoder=codec_config.to_dict(),
        decoder=build_decoder_config(codec_config.codebook_size).to_dict(),
    )
    model = MusicgenForConditionalGeneration(config)
    if codec is not None:
        model.audio_encoder.load_state_dict(codec.state_dict())
    set_token_ids(model)
    return model


def set_token_ids(model: MusicgenForConditionalGeneration) -> None:
    """Set start, padding and MusicGen's published sampling defaults (top-k 250, T=1, guidance 3)."""
    model_info.set_token_ids(model)
    generation: Any = model.generation_config
    generation.eos_token_id = None
    generation.do_sample = True
    generation.top_k = 250
    generation.temperature = 1.0
    generation.guidance_scale = 3.0
    generation.max_length = 403  # 8 s: frames = max_new_tokens - 3, and the start token counts in max_length
