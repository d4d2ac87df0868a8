"""Sound in files and arrays; all samples are float32 of shape [C, S] (channels, samples), full scale is 1.0.

melodies.py     melodies that clips follow: their files, order and hashes
folder_walk.py  one walk through a folder, for readers, captions and fingerprints
librosa_import.py  librosa, imported by one process at a time
listing.py      the audio files of a folder
content.py      the kind of a file by its first bytes
reading.py      length, rate and channels of a file, or all its samples
parts.py        one part of a file through libsndfile or FFmpeg
chunks.py       wav, RF64, W64, aiff, caf, au: find the samples even if sizes in headers are wrong
pcm.py          descriptions of uncompressed samples in headers
mpeg.py         mp3: the length by counting frames
ogg.py          the links of a chained file
ffmpeg.py       decoding with FFmpeg
window.py       a part of a file that decoders read as a file
samples.py      resample, change channels, save
loudness.py     loudness by ITU-R BS.1770
"""

from __future__ import annotations

from lora_bench.audio.content import identify
from lora_bench.audio.listing import AUDIO_SUFFIXES, Listing, list_folder
from lora_bench.audio.parts import AudioHeader
from lora_bench.audio.reading import load_audio, read_header
from lora_bench.audio.samples import RESAMPLER, resample, save_wav, to_channels

__all__ = [
    "AUDIO_SUFFIXES",
    "RESAMPLER",
    "AudioHeader",
    "Listing",
    "identify",
    "list_folder",
    "load_audio",
    "read_header",
    "resample",
    "save_wav",
    "to_channels",
]
