r"""The pocket model: a very small, trained MusicGen in the package, which needs no network.

It has the architecture of MusicGen (EnCodec of 50 frames per second, T5 text encoder, decoder with the delay pattern
over four codebooks) at one hundredth of the size, and was trained for under two hours on two CPU cores on free game
music.  ``CARD.md`` describes it, its training data and its limits; ``pocket_training/TRAINING_LOG.md`` describes the
experiments.

One command per stage trains it (each module's docstring says what it writes and how it resumes).  The weights here come
from the second round of the log, whose options differed::

    python -m pocket_training.data  --music DIR --soundfont SF2 --out WORK                 # audio -> memmap
    torchrun --nproc-per-node 2 -m pocket_training.codec --work WORK --filters 24 --start WEIGHTS --threads 1
    python -m pocket_training.codec_eval --work WORK --codec WORK/codec WEIGHTS --lossy    # its figures
    python -m pocket_training.lm    --work WORK --threads 1                                # -> WORK/lm/weights
    python -m pocket_training.card  --work WORK                                            # card.json, CARD.md

On a GPU, where neither has run yet, add `--device cuda --workers 12` to the codec, `--device cuda --bf16` to `lm`.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"


def pocket_folder() -> Path:
    """Return the folder from which `transformers` loads the pocket model.

    Returns:
        A folder as `MusicgenForConditionalGeneration.save_pretrained` writes it, with tokenizer and
        feature extractor, and `pocket.json` that says whether and how it was trained.

    Raises:
        FileNotFoundError: The weights are not in the package.
    """
    missing = [name for name in ("config.json", "model.safetensors") if not (WEIGHTS / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"the pocket model's weights are not installed: {WEIGHTS} lacks {', '.join(missing)}. "
            "Reinstall lora-bench, or train them: python -m pocket_training.lm --help"
        )
    return WEIGHTS


__all__ = ["pocket_folder"]
