"""Convert configs of a MusicGen between audiocraft and transformers, and refuse unsupported settings.

audiocraft's config is the tree of its YAML, as plain dictionaries; references `${a.b}` are followed.  A missing setting
has the default of audiocraft's constructor, which is not always MusicGen's.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, cast

import yaml
from transformers import EncodecConfig, MusicgenConfig
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from lora_bench.errors import ModelError
from lora_bench.models.delay_pattern import find_delays
from lora_bench.store import JsonObject, JsonValue

REFERENCE = re.compile(r"\$\{([\w.]+)\}")
MAX_REFERENCES = 20  # in a chain
CONDITION = "description"

# path, audiocraft's default, supported values
LM_SETTINGS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("lm_model", "transformer_lm", ("transformer_lm",)),
    ("transformer_lm.norm", "layer_norm", ("layer_norm",)),
    ("transformer_lm.activation", "relu", ("relu", "gelu")),
    ("transformer_lm.norm_first", False, (True,)),
    ("transformer_lm.bias_attn", True, (False,)),
    ("transformer_lm.bias_ff", True, (False,)),
    ("transformer_lm.bias_proj", True, (False,)),
    ("transformer_lm.causal", False, (True,)),
    ("transformer_lm.past_context", None, (None,)),
    ("transformer_lm.layer_scale", None, (None,)),
    ("transformer_lm.positional_embedding", "sin", ("sin",)),
    ("transformer_lm.max_period", 10_000, (10_000,)),
    ("transformer_lm.positional_scale", 1, (1,)),
    ("transformer_lm.qk_layer_norm", False, (False,)),
    ("transformer_lm.qk_layer_norm_cross", False, (False,)),
    ("transformer_lm.kv_repeat", 1, (1,)),
    ("transformer_lm.q_modeling", None, (None, "delay")),
    ("codebooks_pattern.modeling", None, ("delay",)),
    ("codebooks_pattern.delay.flatten_first", 0, (0,)),
    ("codebooks_pattern.delay.empty_initial", 0, (0,)),
    ("fuser.cross_attention_pos_emb", False, (False,)),
    ("conditioners.description.t5.finetune", None, (False,)),
    ("conditioners.description.t5.normalize_text", False, (False,)),
    ("interleave_stereo_codebooks.per_timestep", False, (False,)),
)
CODEC_SETTINGS: tuple[tuple[str, Any, tuple[Any, ...]], ...] = (
    ("compression_model", None, ("encodec",)),
    ("encodec.autoencoder", None, ("seanet",)),
    ("encodec.quantizer", None, ("rvq",)),
    ("encodec.channels", None, (1,)),
    ("encodec.renormalize", False, (False,)),
    ("seanet.activation", "ELU", ("ELU",)),
    ("seanet.activation_params.alpha", 1.0, (1.0,)),
    ("seanet.norm", "none", ("weight_norm",)),
    ("seanet.disable_norm_outer_blocks", 0, (0,)),
    ("seanet.decoder.final_activation", None, (None,)),
)


def parse_config(text: str) -> JsonObject:
    """Parse audiocraft's YAML.

    Raises:
        ModelError: it is not a tree of settings.
    """
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ModelError(f"xp.cfg is not YAML ({error}); expected audiocraft's config") from error
    if not isinstance(found, dict):
        raise ModelError(
            f"xp.cfg is {type(found).__name__}, expected audiocraft's config, a tree of settings"
        )
    return cast("JsonObject", found)


def look_up(config: JsonObject, path: str, default: Any = None) -> Any:
    """Return a setting by its dotted path, after following references; `default` if it is missing.

    Raises:
        ModelError: references form a cycle.
    """
    return _look_up(config, path, default, n_left=MAX_REFERENCES)


def _look_up(config: JsonObject, path: str, default: Any, n_left: int) -> Any:
    if n_left == 0:
        raise ModelError(f"xp.cfg: {path} refers to itself; the config is damaged")
    node: Any = config
    for part in path.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return default
        node = cast("JsonObject", node)[part]
        reference = REFERENCE.fullmatch(node) if isinstance(node, str) else None
        if reference is not None:
            node = _look_up(config, reference[1], None, n_left - 1)
    return node


def _check(config: JsonObject, settings: tuple[tuple[str, Any, tuple[Any, ...]], ...], name: str) -> None:
    for path, default, supported in settings:
        value = look_up(config, path, default)
        if value not in supported:
            expected = " or ".join(repr(each) for each in supported)
            raise ModelError(
                f"model.id: {name}: {path} is {value!r}, and only {expected} is supported here; choose a "
                "published text-to-music MusicGen, or one trained with the same architecture"
            )


def check_conditioners(config: JsonObject, name: str) -> None:
    """Refuse models with conditioners other than text.

    Raises:
        ModelError: names the conditioner.
    """
    kinds = {
        key: look_up(config, f"conditioners.{key}.model")
        for key in (look_up(config, "conditioners") or {})
        if key != "args"
    }
    fused = {key: list(look_up(config, f"fuser.{key}") or []) for key in ("cross", "prepend", "sum")}
    fused["input_interpolate"] = list(look_up(config, "fuser.input_interpolate") or [])
    if kinds == {CONDITION: "t5"} and fused.pop("cross") == [CONDITION] and not any(fused.values()):
        return
    named = ", ".join(f"{key} ({kind})" for key, kind in kinds.items()) or "none"
    raise ModelError(
        f"model.id: {name}: its conditioners are {named}, and only `description (t5)` by cross-attention is "
        "supported: melody and style models take audio as a prompt; choose a text-to-music MusicGen such as "
        "facebook/musicgen-small"
    )


def decoder_config_from_audiocraft(
    config: JsonObject, frame_rate_hz: float, name: str
) -> MusicgenDecoderConfig:
    """Return transformers' config of the decoder.

    Args:
        config: of the language model.
        frame_rate_hz: of the codec; the longest clip is as long as a training segment.
        name: for errors.

    Raises:
        ModelError: a setting is not supported.
    """
    check_conditioners(config, name)
    _check(config, LM_SETTINGS, name)
    n_codebooks = int(look_up(config, "transformer_lm.n_q"))
    channels = 2 if look_up(config, "interleave_stereo_codebooks.use", False) else 1
    delays = look_up(config, "codebooks_pattern.delay.delays") or list(range(n_codebooks))
    expected = list(find_delays(n_codebooks, channels))
    if list(delays) != expected:
        raise ModelError(
            f"model.id: {name}: codebooks_pattern.delay.delays are {list(delays)}, expected {expected}; other "
            "patterns are not supported"
        )
    card = int(look_up(config, "transformer_lm.card"))
    width = int(look_up(config, "transformer_lm.dim"))
    segment_s = float(look_up(config, "dataset.segment_duration", 30.0))
    return MusicgenDecoderConfig(
        vocab_size=card,
        hidden_size=width,
        num_hidden_layers=int(look_up(config, "transformer_lm.num_layers")),
        num_attention_heads=int(look_up(config, "transformer_lm.num_heads")),
        ffn_dim=int(float(look_up(config, "transformer_lm.hidden_scale", 4)) * width),
        activation_function=look_up(config, "transformer_lm.activation", "relu"),
        dropout=float(look_up(config, "transformer_lm.dropout", 0.1)),
        num_codebooks=n_codebooks,
        audio_channels=channels,
        max_position_embeddings=round(segment_s * frame_rate_hz) + max(delays),
        pad_token_id=card,
        bos_token_id=card,
    )


def decoder_config_to_audiocraft(
    decoder: MusicgenDecoderConfig, frame_rate_hz: float, text_name: str
) -> dict[str, JsonValue]:
    """Return audiocraft's config of a language model, complete for its own loader.

    `text_name` is the T5, as `from_pretrained` knows it; the frame rate is that of the codec.
    """
    delays = list(find_delays(decoder.num_codebooks, decoder.audio_channels))
    is_stereo = decoder.audio_channels == 2
    segment_s = (decoder.max_position_embeddings - max(delays)) / frame_rate_hz
    return {
        "solver": "musicgen",
        "device": "cpu",
        "dtype": "float32",
        "channels": decoder.audio_channels,
        "lm_model": "transformer_lm",
        "transformer_lm": {
            "n_q": decoder.num_codebooks,
            "card": decoder.vocab_size,
            "dim": decoder.hidden_size,
            "num_heads": decoder.num_attention_heads,
            "num_layers": decoder.num_hidden_layers,
            "hidden_scale": _find_scale(decoder.ffn_dim, decoder.hidden_size),
            "activation": decoder.activation_function,
            "dropout": decoder.dropout,
            "norm": "layer_norm",
            "norm_first": True,
            "bias_attn": False,
            "bias_ff": False,
            "bias_proj": False,
            "causal": True,
            "custom": False,
            "memory_efficient": True,
            "positional_embedding": "sin",
        },
        "codebooks_pattern": {
            "modeling": "delay",
            "delay": {"delays": delays, "flatten_first": 0, "empty_initial": 0},
        },
        "conditioners": {
            CONDITION: {"model": "t5", "t5": {"name": text_name, "finetune": False, "word_dropout": 0.0}},
        },
        "fuser": {
            "cross_attention_pos_emb": False,
            "cross_attention_pos_emb_scale": 1,
            "sum": [],
            "prepend": [],
            "cross": [CONDITION],
            "input_interpolate": [],
        },
        "classifier_free_guidance": {"training_dropout": 0.3, "inference_coef": 3.0},
        "attribute_dropout": {},
        "interleave_stereo_codebooks": {"use": is_stereo, "per_timestep": False},
        "compression_model_n_q": None,
        "dataset": {"segment_duration": segment_s},
    }


def _find_scale(ffn_width: int, width: int) -> float:
    """Return the factor from which audiocraft computes `ffn_width` (it multiplies and truncates)."""
    scale = ffn_width / width
    return scale if int(scale * width) == ffn_width else math.nextafter(scale, math.inf)


def codec_config_from_audiocraft(config: JsonObject, name: str) -> EncodecConfig:
    """Return transformers' config of audiocraft's EnCodec.

    Raises:
        ModelError: a setting is not supported.
    """
    _check(config, CODEC_SETTINGS, name)

    def seanet(key: str, default: Any) -> Any:
        return look_up(config, f"seanet.{key}", default)

    n_codebooks, size = int(look_up(config, "rvq.n_q", 8)), int(look_up(config, "rvq.bins", 1024))
    rate_hz = int(look_up(config, "encodec.sample_rate"))
    made = EncodecConfig(
        sampling_rate=rate_hz,
        audio_channels=1,
        normalize=False,
        chunk_length_s=None,
        overlap=None,
        hidden_size=int(seanet("dimension", 128)),
        num_filters=int(seanet("n_filters", 32)),
        num_residual_layers=int(seanet("n_residual_layers", 3)),
        upsampling_ratios=list(seanet("ratios", [8, 5, 4, 2])),
        norm_type="weight_norm",
        kernel_size=int(seanet("kernel_size", 7)),
        last_kernel_size=int(seanet("last_kernel_size", 7)),
        residual_kernel_size=int(seanet("residual_kernel_size", 3)),
        dilation_growth_rate=int(seanet("dilation_base", 2)),
        use_causal_conv=bool(look_up(config, "encodec.causal", False)),
        pad_mode=seanet("pad_mode", "reflect"),
        compress=int(seanet("compress", 2)),
        num_lstm_layers=int(seanet("lstm", 0)),
        trim_right_ratio=float(seanet("decoder.trim_right_ratio", 1.0)),
        codebook_size=size,
        codebook_dim=int(seanet("dimension", 128)),
        use_conv_shortcut=not seanet("true_skip", True),
    )
    made.target_bandwidths = [_find_bandwidth_kbps(made, n_codebooks)]
    return made


def _find_bandwidth_kbps(codec: EncodecConfig, n_codebooks: int) -> float:
    """Return the bandwidth from which transformers computes `n_codebooks` (it divides and truncates)."""
    rate_bps = codec.frame_rate * codec.codebook_nbits * n_codebooks
    return (
        rate_bps / 1000 if rate_bps / 1000 * 1000 >= rate_bps else math.nextafter(rate_bps / 1000, math.inf)
    )


def codec_config_to_audiocraft(codec: EncodecConfig, n_codebooks: int) -> dict[str, JsonValue]:
    """Return audiocraft's config of an EnCodec with `n_codebooks` a channel, complete for its own loader."""
    return {
        "solver": "compression",
        "device": "cpu",
        "sample_rate": codec.sampling_rate,
        "channels": 1,
        "compression_model": "encodec",
        "encodec": {
            "autoencoder": "seanet",
            "quantizer": "rvq",
            "sample_rate": codec.sampling_rate,
            "channels": 1,
            "causal": codec.use_causal_conv,
            "renormalize": False,
        },
        "seanet": {
            "dimension": codec.hidden_size,
            "channels": 1,
            "causal": codec.use_causal_conv,
            "n_filters": codec.num_filters,
            "n_residual_layers": codec.num_residual_layers,
            "ratios": list(codec.upsampling_ratios),
            "activation": "ELU",
            "activation_params": {"alpha": 1.0},
            "norm": codec.norm_type,
            "norm_params": {},
            "kernel_size": codec.kernel_size,
            "last_kernel_size": codec.last_kernel_size,
            "residual_kernel_size": codec.residual_kernel_size,
            "dilation_base": codec.dilation_growth_rate,
            "pad_mode": codec.pad_mode,
            "true_skip": not codec.use_conv_shortcut,
            "compress": codec.compress,
            "lstm": codec.num_lstm_layers,
            "disable_norm_outer_blocks": 0,
            "encoder": {},
            "decoder": {
                "trim_right_ratio": codec.trim_right_ratio,
                "final_activation": None,
                "final_activation_params": None,
            },
        },
        "rvq": {"n_q": n_codebooks, "bins": codec.codebook_size, "q_dropout": False, "kmeans_init": False},
    }


def join_configs(decoder: MusicgenDecoderConfig, codec: EncodecConfig, text: Any) -> MusicgenConfig:
    """Return transformers' config of a whole MusicGen."""
    parts: dict[str, Any] = {
        "text_encoder": text.to_dict(),
        "audio_encoder": codec.to_dict(),
        "decoder": decoder.to_dict(),
    }
    return cast("Any", MusicgenConfig)(**parts)
