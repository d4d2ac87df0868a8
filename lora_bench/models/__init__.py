"""MusicGen behind one interface.

base.py                    the interface of a model, and what is the same on all backends: adapters, text, the loss
records.py                 facts about a model; its decoder's weights
loading.py, model_files.py load a spec's model; find its files, with clear errors
identity.py, hash_cache.py the hash of a loaded model
model_info.py, device.py   facts about a network; devices and arithmetic
network_parts.py           a network with or without its text encoder and codec
transformers_musicgen.py   a model on transformers' classes
transformers_melody.py     the same of a melody model
melodies.py                melodies as such a model reads them
audiocraft_backend/        a model on audiocraft's classes, imported only if a spec names it
bridges/                   convert weights, configs and adapters between the two
compiled_training.py       decoder layers compiled by torch, for training steps
adapter_strength.py        an adapter at other strengths than it was trained with
lora.py, targets.py        adapters by PEFT; module names of target words
delay_pattern.py           the delay pattern
linears.py, extraction.py  the decoder's weights as plain tensors, adapter included
decoding/                  steps, kernels, sampling, noise
token_set.py               codes and text states of a dataset
memory.py                  free and used memory, out-of-memory errors
pocket/                    the embedded model
"""

from lora_bench.models.base import MusicModel
from lora_bench.models.loading import load_model
from lora_bench.models.records import LoraInjection, ModelInfo

__all__ = ["LoraInjection", "ModelInfo", "MusicModel", "load_model"]
