"""The seam to MusicGen.

protocol.py                what stages may ask of a model, and the records that cross the seam
loading.py, model_files.py a spec's model -> a loaded one; where its files lie, clear errors, weights hash
network_parts.py           a network with or without its text encoder and codec
adaptable.py               what all backends share: adapters, channels, text, the training loss
transformers_musicgen.py   the protocol on transformers' classes
audiocraft_*.py            the protocol on audiocraft's, imported only where a spec asks for it
bridges/                   weights, configs and adapters between the two
compiled_steps.py          decoder layers compiled by torch, for training steps
lora.py, targets.py        adapters by PEFT; target words -> module names
labels.py                  the delay pattern
linears.py, extraction.py  the decoder's weights as plain tensors, adapter included
decoding.py                the decoding loop; sampling.py, noise.py: one draw per clip, step and codebook
kernels.py                 how matrices meet few rows; decoder_step.py: one step, past.py: its keys and values
streamed_step.py           the same step for small batches, by the functions of compiled/
stepping.py                from position to position, on a GPU as captured graphs
token_set.py               codes and text states of a dataset
memory.py                  what is free, what was used, what is an out-of-memory error
random_model.py            MusicGens with random weights, for tests and benchmarks
pocket/                    the embedded model
"""

from lora_bench.models.loading import load_model
from lora_bench.models.protocol import LoraInjection, ModelInfo, MusicModel

__all__ = ["LoraInjection", "ModelInfo", "MusicModel", "load_model"]
