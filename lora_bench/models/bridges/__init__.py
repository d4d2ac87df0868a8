"""Convert weights, configs and adapters between transformers and audiocraft, without audiocraft itself.

parts.py          a MusicGen as data, in transformers' terms; from and to a transformers network
tensors.py        the same weights under the other library's names
configs.py        the same shape in the other library's config; unsupported settings are refused
exports.py        find, read and write audiocraft's files: exports and the solver's checkpoints
text_encoders.py  find and load the T5 that an audiocraft config names
adapters.py       an adapter's files under the other library's names
conversion.py     convert one folder into another
"""
