"""Results on disk to something people read: markdown, one-file HTML, plots, CSV, JSON.

`view.py` looks cells up, `*_sections.py` and `summary.py` say what there is to say as blocks
(`document.py`) in the order of `contents.py`, `markdown.py` and `html.py` write the blocks down.
Everything comes from the run's files; neither torch nor ray is imported.
"""

from __future__ import annotations

from lora_bench.report.render import render_report

__all__ = ["render_report"]
