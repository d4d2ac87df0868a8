"""Code that runs where heavy packages are not installed."""

from __future__ import annotations

HEAVY = ("torch", "ray", "transformers", "librosa", "peft", "pandas", "matplotlib", "audiocraft")
REFUSE_HEAVY = (
    "import sys\n"
    "class Refuse:\n"
    "    def find_spec(self, name, *_):\n"
    f"        if name.partition('.')[0] in {HEAVY!r}: raise ImportError(name)\n"
    "sys.meta_path.insert(0, Refuse())\n"
)
"""First lines of a script: importing a heavy package fails from here on."""
