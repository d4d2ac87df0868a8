"""Stage `dataset`: a folder of recordings becomes a manifest of tracks and slices.

sources.py        what dataset.path names, as a folder: archives.py, audio_tables.py, track_lists.py, hub_datasets.py;
                  source_plugin.py those of other packages; unpacked_folder.py checks what is written
recordings.py     one file: hash, decode, resample once into the store, or a reason to leave it out
sound_edits.py    what `dataset.prepare` changes in a recording: offset, silence at the ends, loudness
processed_sound.py the sound of a recording after a user's program and without vocals (vocals.py)
captions.py       the training text of each file as it is written: one text, tables, sidecars
metadata.py       lines of metadata.jsonl and csv files, and the file that each means
caption_tables.py csv files that hold captions
sidecars.py       text and JSON files next to the recordings
composing.py      captions by a template over the fields of each track; the sources of fields are field_names.py,
                  file_tags.py, caption_command.py, captioner.py (plug-ins) and measured.py
track_captions.py the caption of each track and where it comes from
caption_variants.py more captions of a track, for training to choose from
caption_export.py captions and fields as a file to edit and read back
inspection.py     faults of recordings and captions before training; track_facts.py measures one recording,
                  track_map.py places all of them by timbre
grouping.py       tracks that stay on one side of the split; near_duplicates.py finds the same music in two recordings
splits.py         tracks to sides, tracks to slices
data_size.py      nested parts of the training side
manifest.py       a manifest from JSON; excerpts of its tracks as reference clips
prepare.py        all of it, in order
"""

from __future__ import annotations

from lora_bench.stages.dataset.data_size import take_training
from lora_bench.stages.dataset.manifest import manifest_from_json, n_reference_clips, reference_clips
from lora_bench.stages.dataset.prepare import prepare_dataset

__all__ = [
    "manifest_from_json",
    "n_reference_clips",
    "prepare_dataset",
    "reference_clips",
    "take_training",
]
