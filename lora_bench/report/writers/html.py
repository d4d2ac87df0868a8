"""A report as one HTML file: style, script, plots and sound are inline, and nothing is loaded.

The templates escape every value that is not Markup, and only the plots, the style and the script are Markup.
A content security policy that names the hashes of the page's own style and script is the second defence.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lora_bench.report.formatting import drop_control_characters
from lora_bench.report.writers.document import Block, Heading, Span, Text, is_shown
from lora_bench.report.writers.svg import STYLE as PLOT_STYLE

_TEMPLATES = Path(__file__).parents[1] / "templates"


def write_page(title: str, blocks: Iterable[Block]) -> str:
    """Return the whole HTML document."""
    shown = [block for block in blocks if is_shown(block, "page")]
    return (
        load_templates(_TEMPLATES)
        .get_template("page.html.j2")
        .render(
            title=title,
            blocks=shown,
            has_answer=any(isinstance(block, Heading) and block.anchor == "answer" for block in shown),
            sections=[block for block in shown if isinstance(block, Heading) and block.level == 2],
            style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8") + PLOT_STYLE),
            script=Markup((_TEMPLATES / "page.js").read_text(encoding="utf-8")),
        )
    )


@cache
def load_templates(folder: Path) -> Environment:
    """Return the templates of a folder: values that are not Markup are escaped, and absent ones are errors."""
    templates = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_clean,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    filters = cast("dict[str, Any]", templates.filters)
    filters.update(spans=_list_spans, kind=_name_kind, drop_style=_drop_style, hash_source=_hash_source)
    return templates


def _clean(value: object) -> object:
    """Drop what no page may hold from text; Markup is our own."""
    return (
        value if isinstance(value, Markup) or not isinstance(value, str) else drop_control_characters(value)
    )


def _list_spans(text: Text) -> tuple[Span, ...]:
    return (text,) if isinstance(text, str) else text


def _name_kind(item: Block | Span) -> str:
    return type(item).__name__


def _drop_style(svg: Markup) -> Markup:
    """Return the plot without its style, which the page's head has once for all plots."""
    start, _, rest = svg.partition(f"<style>{PLOT_STYLE}</style>\n")
    return start + rest


def _hash_source(text: str) -> str:
    """Return the policy's source expression that allows exactly this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
