"""What people take from a finished run: sound made with an adapter, and the adapter itself.

choice.py      which trial is meant, `best` included
rendering.py   a clip with an adapter at some strength, and its zero-shot twin from the same noise
exporting.py   a PEFT folder or merged weights, without anything of this machine in it
card.py        the model card, from the report
hub.py         to the Hugging Face Hub

Only `rendering.py` and the merging in `exporting.py` need torch.
"""
