"""Adapters of a finished run: clips made with them, and exports.

choose.py      which trial is meant, `best` included
render.py      a clip with an adapter at some strength, and its zero-shot twin from the same noise
folders.py     adapters given by their folders, without a run
stack.py       several adapters as one
export.py      a PEFT folder or merged weights, without anything of this machine in it
model_card.py  the model card, from the report
hub.py         to the Hugging Face Hub
publication.py adapters, clips and the report of a run as repositories of the hub

Only `render.py`, `stack.py` and the merging in `export.py` need torch.
"""
