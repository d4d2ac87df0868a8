"""Between transformers and audiocraft: weights, configs, adapters.  None of it needs audiocraft itself.

parts.py          a MusicGen as data, in transformers' terms; from and to a transformers network
tensors.py        the same weights under the other library's names
configs.py        the same shape in the other library's config, and what is refused
exports.py        audiocraft's files: exports and the solver's checkpoints, found, read, written
text_encoders.py  the T5 that an audiocraft config names
adapters.py       an adapter's files under the other library's names
conversion.py     one folder to another
"""
