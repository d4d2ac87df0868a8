"""Encoders: audio clips in, embedding vectors out, each with the provenance of what made it.

    protocol.py   the interface of an encoder
    assembly.py   check, resample, batch, join: shared by all
    mfcc.py       mfcc20, mfcc20-seed
    encodec.py    encodec: the music model's own codec
    musicnn.py    musicnn, musicnn-mtt, musicnn-tags: a music tagger, weights from the PyPI package of that name
    musicnn_network.py, tensor_bundle.py   its layers in torch, and a reader of its TensorFlow checkpoint
    pretrained.py vggish, pann, pann-32k, encodec-24k: frechet-audio-distance's networks
    clap.py       clap, and the texts of the CLAP score
    checkpoints.py   find weights, or say how to get them
    musical.py    tempo, pulse, onsets, loudness, loudness-range, brightness, tonality: musical measures
    melody_agreement.py   how far clips follow their melodies
    tag_adherence.py   how probable a music tagger finds what the prompts name
    mert.py, muq.py, audiobox.py, passt.py   shipped plug-ins
    plugin.py     encoders of other packages; command.py those that are commands
    mel.py        log-mel features for the guards

If an encoder's weights are not on this machine, `get_encoder` raises `UnscoredError`, which says how to get them.
Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module, metadata
from typing import TYPE_CHECKING, Any

from lora_bench.encoders.protocol import Encoder
from lora_bench.errors import ScoreError, UnscoredError
from lora_bench.metrics import names
from lora_bench.metrics.names import COMMAND, list_encoders
from lora_bench.plugins import PluginSource

if TYPE_CHECKING:
    from lora_bench.models.base import MusicModel

_WITH_WEIGHTS = {
    "musicnn": ("musicnn", "MusicnnEncoder"),
    "musicnn-mtt": ("musicnn", "MusicnnEncoder"),
    "musicnn-tags": ("musicnn", "MusicnnTagsEncoder"),
    "vggish": ("pretrained", "VggishEncoder"),
    "pann": ("pretrained", "PannEncoder"),
    "pann-32k": ("pretrained", "PannEncoder"),
    "clap": ("clap", "ClapEncoder"),
    "encodec-24k": ("pretrained", "Encodec24Encoder"),
}
"""Module and class of encoders with a network of their own; a module is imported when it is asked for."""
ENCODER_NAMES = tuple(dict.fromkeys((*names.ENCODER_NAMES, *_WITH_WEIGHTS)))
CPU_ENCODERS = frozenset(names.ENCODER_NAMES) - {"encodec"} - set(_WITH_WEIGHTS)
"""Encoders that compute on the CPU, whatever the device of the music model."""


def get_encoder(
    name: str,
    *,
    music_model: MusicModel | None = None,
    device: str = "auto",
    settings: Mapping[str, Any] | None = None,
) -> Encoder:
    """Return the encoder of that name.

    Args:
        name: one of `ENCODER_NAMES`, of an installed plug-in, or `command.NAME`.
        music_model: the model under test; `encodec` uses its codec and `mfcc20` its rate.
        device: `auto`, `cpu` or `cuda`, for encoders with a network of their own.
        settings: of a plug-in or a command.

    Before its first use, `mfcc20` needs recordings of the genre: `encoder.fit_scale(clips)`.

    Raises:
        ScoreError: there is no such encoder, or the music model that it needs is missing.
        SpecError: the settings are not those of the plug-in or of a command.
        UnscoredError: its weights are not on this machine; says how to get them.  Or a plug-in does not work.
    """
    if name == "mfcc20-seed":
        from lora_bench.encoders.mfcc import SeedMfccEncoder

        return SeedMfccEncoder()
    if name == "mfcc20":
        from lora_bench.encoders.mfcc import MfccEncoder

        return MfccEncoder(_need_model(name, music_model).info.audio_format.sample_rate_hz)
    if name == "encodec":
        from lora_bench.encoders.encodec import EncodecEncoder

        return EncodecEncoder(_need_model(name, music_model))
    if name in _WITH_WEIGHTS:
        module, kind = _WITH_WEIGHTS[name]
        return getattr(import_module(f"lora_bench.encoders.{module}"), kind)(name, device=device)
    if name == names.MELODY_AGREEMENT:
        raise UnscoredError(f"{name}: only the trials of a run follow melodies, by generation.melodies")
    if name == names.TAG_ADHERENCE:
        raise UnscoredError(f"{name}: it needs the text that the clips were generated from; give a prompt")
    source = _find_source(name)
    if source is None:
        raise ScoreError(f"{name!r} is not an encoder; expected one of {', '.join(ENCODER_NAMES)}")
    from lora_bench.encoders.plugin import PluginEncoder

    return PluginEncoder(name, source, settings or {}, device=device)


def _find_source(name: str) -> PluginSource | None:
    """Return who offers an encoder that keeps the contract of plug-ins; None if nobody does."""
    if name in names.ENCODER_NAMES:
        from lora_bench.encoders.musical import make_measure

        return PluginSource(f"lora_bench {metadata.version('lora-bench')}", lambda: make_measure(name))
    if COMMAND.fullmatch(name):
        from lora_bench.encoders.command import CommandPlugin

        return PluginSource("the spec", lambda: CommandPlugin)
    return list_encoders().get(name)


def _need_model(name: str, music_model: MusicModel | None) -> MusicModel:
    if music_model is None:
        raise ScoreError(f"{name}: it needs the music model; give `music_model`")
    return music_model


__all__ = ["CPU_ENCODERS", "ENCODER_NAMES", "Encoder", "get_encoder"]
