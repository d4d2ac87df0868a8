"""Stage `dataset`: a folder of recordings becomes a manifest of tracks and slices.

recordings.py     one file: hash, decode, resample once into the store, or a reason to leave it out
captions.py       the training text of each file
metadata.py       lines of metadata.jsonl, and the file that each means
caption_files.py  text and JSON in the encodings that people use
splits.py         tracks to sides, tracks to slices
manifest.py       a manifest from JSON; excerpts of its tracks as reference clips
prepare.py        all of it, in order
"""

from __future__ import annotations

from lora_bench.stages.dataset.manifest import manifest_from_json, n_reference_clips, reference_clips
from lora_bench.stages.dataset.prepare import check_folder, prepare_dataset

__all__ = ["check_folder", "manifest_from_json", "n_reference_clips", "prepare_dataset", "reference_clips"]
