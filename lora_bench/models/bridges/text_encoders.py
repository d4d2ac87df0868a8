"""Find the T5 that an audiocraft config names: next to the export, in a folder, or in the hub's cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from transformers import AutoTokenizer, T5EncoderModel

from lora_bench.errors import ModelError
from lora_bench.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT_FOLDER = "text_encoder"  # next to an export that was converted here
FILES = ("*.json", "*.safetensors", "spiece.model")
WIDTHS_OWNER = "google-t5"  # the hub's owner of what was once called t5-base


def find_text_encoder(name: str, folder: Path) -> Path:
    """Find the folder of the T5 that the config of an export in `folder` names, such as `t5-base`.

    Raises:
        ModelError: there is none; says how to get it.
    """
    for place in (folder / TEXT_FOLDER, folder / name, Path(name).expanduser()):
        if (place / "config.json").is_file():
            return place
    hub_ids = [name] if "/" in name else [name, f"{WIDTHS_OWNER}/{name}"]
    for hub_id in hub_ids:
        try:
            found = Path(snapshot_download(hub_id, allow_patterns=list(FILES)))
        except (LocalEntryNotFoundError, HFValidationError, HfHubHTTPError, OSError):
            continue
        if (found / "config.json").is_file():
            return found
    raise ModelError(
        f"model.id: {folder}: its text encoder {name!r} is neither in {folder / TEXT_FOLDER} nor in the hub's "
        f"cache; where there is a network run `hf download {hub_ids[-1]}`, or put the T5 and its tokenizer into "
        f"{folder / TEXT_FOLDER}"
    )


def load_text_encoder(folder: Path) -> tuple[T5EncoderModel, PreTrainedTokenizerBase]:
    """Load T5's encoder in float32 and its tokenizer.

    Raises:
        ModelError: the files are damaged or incomplete.
    """
    with quiet_transformers():
        try:
            encoder: Any = T5EncoderModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"{folder}: the text encoder cannot be loaded ({lines[0]}); expected a T5 and its tokenizer as "
                "transformers writes them"
            ) from error
    return encoder.eval(), cast("PreTrainedTokenizerBase", tokenizer)
