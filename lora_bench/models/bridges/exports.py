"""audiocraft's files: an export's `state_dict.bin` and `compression_state_dict.bin`, or a solver's checkpoint.

Nothing is unpickled that could run code: torch reads exports with `weights_only`.  The solver's checkpoints also
contain OmegaConf's objects; only its plain containers are allowed.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from torch import Tensor, nn
from transformers import EncodecConfig, EncodecModel
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from lora_bench.errors import ModelError
from lora_bench.models.audiocraft_library import INSTALL
from lora_bench.models.bridges.configs import (
    codec_config_from_audiocraft,
    codec_config_to_audiocraft,
    decoder_config_from_audiocraft,
    decoder_config_to_audiocraft,
    join_configs,
    look_up,
    parse_config,
)
from lora_bench.models.bridges.parts import MusicGenParts, add_identity, drop_identity
from lora_bench.models.bridges.tensors import (
    codec_to_audiocraft,
    codec_to_transformers,
    decoder_to_audiocraft,
    decoder_to_transformers,
)
from lora_bench.models.bridges.text_encoders import TEXT_FOLDER, find_text_encoder, load_text_encoder
from lora_bench.models.model_files import POCKET
from lora_bench.models.quiet import quiet_transformers
from lora_bench.spec.schema import ModelSpec
from lora_bench.store import JsonObject

LM_FILE = "state_dict.bin"
CODEC_FILE = "compression_state_dict.bin"
CHECKPOINT_FILE = "checkpoint.th"
VERSION = "1.3.0"  # of audiocraft's form
PRETRAINED = "//pretrained/"
Package = Mapping[str, object]
"""What torch reads from a file of audiocraft's: tensors by name, the config as text, notes."""


@dataclass(frozen=True)
class AudiocraftFiles:
    """The files of a model; `codec` is None if the language model's config names the codec."""

    folder: Path
    lm: Path
    codec: Path | None
    hub_id: str | None = None


def find_audiocraft_files(spec: ModelSpec) -> AudiocraftFiles | None:
    """Find audiocraft's files of a model; None if it is not in audiocraft's form.

    For a model on the hub they are used if the cache has them but not those of transformers.
    """
    if spec.id == POCKET:
        return None
    path = Path(spec.id).expanduser()
    if path.is_file():
        return _files_in(path.parent, path.name)
    if path.is_dir():
        for name in (LM_FILE, CHECKPOINT_FILE):
            if (path / name).is_file():
                return _files_in(path, name)
        return None
    if spec.id.count("/") != 1 or spec.id.startswith((".", "/", "~")):
        return None
    cached = try_to_load_from_cache(spec.id, LM_FILE, revision=spec.revision)
    config = try_to_load_from_cache(spec.id, "config.json", revision=spec.revision)
    if not isinstance(cached, str) or isinstance(config, str):
        return None
    try:
        codec = Path(hf_hub_download(spec.id, CODEC_FILE, revision=spec.revision))
    except OSError as error:
        raise ModelError(
            f"model.id: {spec.id}: {CODEC_FILE} is not in the hub's cache ({error}); where there is a network "
            f"run `hf download {spec.id} {LM_FILE} {CODEC_FILE}`"
        ) from error
    return AudiocraftFiles(Path(cached).parent, Path(cached), codec, spec.id)


def _files_in(folder: Path, name: str) -> AudiocraftFiles:
    codec = folder / CODEC_FILE
    return AudiocraftFiles(folder, folder / name, codec if codec.is_file() else None)


def read_parts(files: AudiocraftFiles) -> tuple[MusicGenParts, list[Path]]:
    """Read a model from audiocraft's files; return it and the files of its weights.

    Raises:
        ModelError: the files are damaged, or the model is not supported.
    """
    name = files.hub_id or str(files.folder)
    lm_state, lm_config = read_package(files.lm)
    codec_config, codec_state, used = _read_codec(files, lm_config, name)
    frame_rate_hz = codec_config.sampling_rate / codec_config.hop_length
    decoder = decoder_config_from_audiocraft(lm_config, frame_rate_hz, name)
    _check_codes(decoder, codec_config, name)
    text_name = str(look_up(lm_config, "conditioners.description.t5.name"))
    text_folder = find_text_encoder(text_name, files.folder)
    text_encoder, tokenizer = load_text_encoder(text_folder)
    decoder_state = {key: tensor.float() for key, tensor in decoder_to_transformers(lm_state).items()}
    parts = MusicGenParts(
        config=join_configs(decoder, codec_config, text_encoder.config),
        decoder_state=drop_identity(decoder_state),
        codec_state=codec_state,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
    )
    weights = sorted(text_folder.glob("*.safetensors"))
    return parts, [files.lm, *used, text_folder / "config.json", *weights]


def check_export(path: Path, name: str) -> None:
    """Refuse an export or a solver's checkpoint of an unsupported model by its config, without reading weights.

    Raises:
        ModelError: the file is damaged, or the model is not supported.
    """
    _, config = _split_package(_load(path, is_mapped=True), path)
    decoder_config_from_audiocraft(config, 50.0, name)  # the frame rate only sizes the positions


def _check_codes(decoder: MusicgenDecoderConfig, codec: EncodecConfig, name: str) -> None:
    """Refuse a model trained on only the first codebooks of its codec (`compression_model_n_q`)."""
    wanted = decoder.num_codebooks // decoder.audio_channels, decoder.vocab_size
    found = codec.num_quantizers, codec.codebook_size
    if wanted != found:
        raise ModelError(
            f"model.id: {name}: its language model speaks in {wanted[0]} codebooks of {wanted[1]} codes, its codec "
            f"in {found[0]} of {found[1]}; only a codec that is used whole is supported"
        )


def _read_codec(
    files: AudiocraftFiles, lm_config: JsonObject, name: str
) -> tuple[EncodecConfig, dict[str, Tensor], list[Path]]:
    path = files.codec
    published: str | None = None
    if path is None:
        where = str(look_up(lm_config, "compression_model_checkpoint", ""))
        if where.startswith(PRETRAINED):
            published = where.removeprefix(PRETRAINED)
        elif where and (found := _find_codec_checkpoint(Path(where))) is not None:
            path = found
        else:
            raise ModelError(
                f"model.id: {name}: there is no {CODEC_FILE}, and the config names its codec {where!r}, which is "
                f"not here; export the codec as {CODEC_FILE} into {files.folder}"
            )
    if path is not None:
        package = _load(path)
        named = package.get("pretrained")
        published = None if named is None else str(named)
        if published is None:
            state, config = _split_package(package, path)
            made = codec_config_from_audiocraft(config, name)
            renamed = {key: tensor.float() for key, tensor in codec_to_transformers(state).items()}
            return made, renamed, [path]
    made, state = _read_published_codec(str(published), name)
    return made, state, [] if path is None else [path]


def _find_codec_checkpoint(place: Path) -> Path | None:
    """Return a checkpoint file, or the one in the folder of the codec's solver."""
    found = place / CHECKPOINT_FILE if place.is_dir() else place
    return found if found.is_file() else None


def _read_published_codec(published: str, name: str) -> tuple[EncodecConfig, dict[str, Tensor]]:
    """Read a codec by its published name in transformers' form, such as facebook/encodec_32khz."""
    with quiet_transformers():
        try:
            codec: Any = EncodecModel.from_pretrained(published, dtype=torch.float32)
        except (OSError, ValueError) as error:
            raise ModelError(
                f"model.id: {name}: its codec {published} is not in the hub's cache; where there is a network "
                f"run `hf download {published}`"
            ) from error
    return codec.config, cast("nn.Module", codec).state_dict()


def read_package(path: Path) -> tuple[dict[str, Tensor], JsonObject]:
    """Read weights and config of an export, or the best ones of a solver's checkpoint.

    Raises:
        ModelError: it is neither, or it is damaged.
    """
    return _split_package(_load(path), path)


def _split_package(package: Package, path: Path) -> tuple[dict[str, Tensor], JsonObject]:
    state: Any = package.get("fsdp_best_state") or package.get("best_state")
    config: Any = package.get("xp.cfg")
    if isinstance(state, dict) and "model" in state:
        state = cast("Package", state)["model"]
    if not isinstance(state, dict) or not state or config is None:
        raise ModelError(
            f"{path}: has the entries {', '.join(map(str, package))}, expected `best_state` and `xp.cfg` of an "
            "export or a checkpoint of audiocraft"
        )
    if not isinstance(config, str):
        from omegaconf import OmegaConf

        config = OmegaConf.to_yaml(config)
    tensors = {str(key): value for key, value in cast("Package", state).items() if isinstance(value, Tensor)}
    return tensors, parse_config(config)


def _load(path: Path, *, is_mapped: bool = False) -> Package:
    is_checkpoint = path.suffix == ".th"
    # unused entries stay on the disk; a checkpoint is mostly the optimizer's state
    mmap = (is_checkpoint or is_mapped) and zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_config_classes() if is_checkpoint else []):
            package = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelError(
            f"{path}: cannot be read safely ({reason}); expected an export or a checkpoint of audiocraft, whole "
            "and with nothing but weights and config in it"
        ) from error
    if not isinstance(package, dict):
        raise ModelError(f"{path}: holds {type(package).__name__}, expected audiocraft's dictionary")
    return cast("Package", package)


def _config_classes() -> list[Any]:
    """List OmegaConf's containers and leaves in a solver's checkpoint; none runs code when read."""
    try:
        from omegaconf import DictConfig, ListConfig, base, nodes
    except ImportError as error:
        raise ModelError(
            f"a checkpoint of audiocraft's solver needs OmegaConf, which is not installed; run `{INSTALL}`"
        ) from error
    leaves = [
        nodes.AnyNode, nodes.StringNode, nodes.IntegerNode, nodes.FloatNode, nodes.BooleanNode,
        nodes.PathNode, nodes.BytesNode,
    ]  # fmt: skip
    # torch cannot fill a defaultdict, which holds the moving average of the weights
    plain: list[Any] = [(_make_dict, "collections.defaultdict"), (Any, "typing.Any")]
    plain += [dict, list, tuple, set, int, float, str, bool]
    return [DictConfig, ListConfig, base.ContainerMetadata, base.Metadata, *leaves, *plain]


def _make_dict(*_: object) -> Package:
    return {}


def write_export(parts: MusicGenParts, folder: Path) -> None:
    """Write audiocraft's two files, and the text encoder next to them, into an existing folder."""
    decoder, codec = cast("Any", parts.config).decoder, cast("Any", parts.config).audio_encoder
    frame_rate_hz = codec.sampling_rate / codec.hop_length
    state = add_identity(parts.decoder_state, decoder.hidden_size)
    text_name = getattr(parts.text_encoder, "name_or_path", "") or TEXT_FOLDER
    lm_config = decoder_config_to_audiocraft(decoder, frame_rate_hz, _public_name(text_name))
    _save(decoder_to_audiocraft(state), lm_config, folder / LM_FILE)
    n_codebooks = decoder.num_codebooks // decoder.audio_channels
    codec_config = codec_config_to_audiocraft(codec, n_codebooks)
    _save(codec_to_audiocraft(parts.codec_state), codec_config, folder / CODEC_FILE)
    with quiet_transformers():
        cast("Any", parts.text_encoder).save_pretrained(folder / TEXT_FOLDER)
        parts.tokenizer.save_pretrained(str(folder / TEXT_FOLDER))


def _public_name(name: str) -> str:
    """Return a name that audiocraft knows, or the folder next to the export; never a path of this machine."""
    plain = name.removeprefix("google-t5/")
    return plain if plain.startswith(("t5-", "google/flan-t5-")) else TEXT_FOLDER


def _save(state: dict[str, Tensor], config: Any, path: Path) -> None:
    kept = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in state.items()}
    text = yaml.safe_dump(config, sort_keys=False)
    torch.save({"best_state": kept, "xp.cfg": text, "version": VERSION, "exported": True}, path)
