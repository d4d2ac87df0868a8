"""Tiny melody checkpoints with random weights, in the form in which transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import MusicgenMelodyConfig, MusicgenMelodyForConditionalGeneration
from transformers.models.musicgen_melody.configuration_musicgen_melody import MusicgenMelodyDecoderConfig

from benchmarks.random_model import MusicGenShape, build_random_musicgen, build_tokenizer
from lora_bench.models.model_info import set_token_ids
from lora_bench.models.quiet import quiet_transformers

CHROMA_LENGTH = 11
SHARED = (
    "vocab_size", "max_position_embeddings", "num_hidden_layers", "ffn_dim", "num_attention_heads", "hidden_size",
    "num_codebooks", "audio_channels", "dropout", "pad_token_id", "bos_token_id",
)  # fmt: skip


def build_random_melody(shape: MusicGenShape, seed: int = 0) -> MusicgenMelodyForConditionalGeneration:
    """Build a melody checkpoint of `shape`, in eval mode, its token ids set."""
    plain = build_random_musicgen(shape).config
    decoder = MusicgenMelodyDecoderConfig(**{name: getattr(plain.decoder, name) for name in SHARED})
    config = MusicgenMelodyConfig(
        text_encoder=plain.text_encoder.to_dict(),
        audio_encoder=plain.audio_encoder.to_dict(),
        decoder=decoder.to_dict(),
        chroma_length=CHROMA_LENGTH,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = MusicgenMelodyForConditionalGeneration(config)
        for layer in network.audio_encoder.quantizer.layers:
            layer.codebook.embed.normal_(std=0.1)
        # projections start with a bias of zero, which would hide an omitted one
        for name in ("enc_to_dec_proj", "audio_enc_to_dec_proj"):
            if hasattr(network, name):
                torch.nn.init.normal_(getattr(network, name).bias, std=0.1)
        if hasattr(network, "audio_enc_to_dec_proj"):  # pitch classes would hardly differ
            torch.nn.init.normal_(network.audio_enc_to_dec_proj.weight, std=3.0)
    set_token_ids(network)
    return network.eval()


def save_random_melody(folder: Path, shape: MusicGenShape, seed: int = 0) -> Path:
    """Write a random melody checkpoint in the form that `load_model` reads; returns `folder`."""
    with quiet_transformers():
        build_random_melody(shape, seed).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    (folder / "pocket.json").write_text(json.dumps({"trained": False}) + "\n", encoding="utf-8")
    return folder
