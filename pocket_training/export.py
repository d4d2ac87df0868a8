"""Write the model for plain `from_pretrained`, whole or not at all."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import (
    EncodecFeatureExtractor,
    EncodecModel,
    MusicgenForConditionalGeneration,
    MusicgenProcessor,
    T5Tokenizer,
)

from pocket_training.shapes import SAMPLE_RATE_HZ, set_token_ids


def export_model(
    model: MusicgenForConditionalGeneration, tokenizer: T5Tokenizer, folder: Path, facts: dict[str, Any]
) -> None:
    """Save model (fp16), tokenizer, feature extractor and `pocket.json` into `folder`, replacing it whole.

    Args:
        model: In fp32; it is left as it is.
        tokenizer: The text encoder's.
        folder: Written under a temporary name first, then renamed.
        facts: For `pocket.json`; must hold `trained`.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    set_token_ids(model)
    # half precision on disk only: a copy, because .half() works in place
    state = {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()}
    model.save_pretrained(fresh, state_dict=state)
    extractor = EncodecFeatureExtractor(feature_size=1, sampling_rate=SAMPLE_RATE_HZ, padding_side="right")
    MusicgenProcessor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    extractor.save_pretrained(fresh)
    _state_dtype(fresh / "config.json")
    (fresh / "pocket.json").write_text(json.dumps(facts, indent=1) + "\n")
    fresh.chmod(0o755)
    for file in fresh.iterdir():
        file.chmod(0o644)  # safetensors writes for the owner alone
    old = None
    if folder.exists():
        old = folder.with_name(f".{folder.name}-old")
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    fresh.rename(folder)
    if old is not None:
        shutil.rmtree(old)


def _state_dtype(config_file: Path) -> None:
    """Write float32 into config.json: float16 is for storage only, and slow on a CPU."""

    def visit(node: Any) -> None:
        if isinstance(node, dict):
            for key in ("dtype", "torch_dtype"):
                if key in node:
                    node[key] = "float32"
            for value in node.values():
                visit(value)

    config = json.loads(config_file.read_text())
    visit(config)
    config["dtype"] = "float32"
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_model(folder: Path) -> MusicgenForConditionalGeneration:
    """Load in fp32, in eval mode, with the start token that transformers 5 does not keep."""
    model = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    set_token_ids(model)
    return model.eval()


def load_encodec(folder: Path) -> EncodecModel:
    """Load a codec in fp32 from its own folder, or out of a whole model's."""
    if (folder / "pocket.json").is_file():
        return load_model(folder).audio_encoder
    return EncodecModel.from_pretrained(folder, dtype=torch.float32).eval()
