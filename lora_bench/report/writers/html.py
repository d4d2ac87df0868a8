"""Blocks as one HTML file: style, script, plots and sound inside, nothing loaded from anywhere.

A content security policy that names the hashes of the page's own style and script keeps it so, even if a
prompt found a way around the escaping.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from pathlib import Path

from lora_bench.report.formatting import drop_control_characters
from lora_bench.report.writers.document import (
    Block,
    Bullets,
    Cell,
    Clip,
    Code,
    CodeBlock,
    Figure,
    Heading,
    Link,
    Listening,
    Paragraph,
    Span,
    Strong,
    Table,
    Text,
)
from lora_bench.report.writers.svg import STYLE as PLOT_STYLE

_FOLDER = Path(__file__).parent


def write_page(title: str, blocks: Iterable[Block]) -> str:
    """The whole HTML document."""
    listed = [b for b in blocks if not (isinstance(b, Paragraph) and b.only_in == "markdown")]
    style = (_FOLDER / "page.css").read_text(encoding="utf-8") + PLOT_STYLE
    script = (_FOLDER / "page.js").read_text(encoding="utf-8")
    policy = (
        f"default-src 'none'; style-src '{_hash_source(style)}'; script-src '{_hash_source(script)}'; "
        "img-src data:; media-src data:"
    )
    sections = [block for block in listed if isinstance(block, Heading) and block.level == 2]
    contents = "".join(
        f'<li><a href="#{_esc(block.anchor)}">{_esc(block.text)}</a></li>' for block in sections
    )
    body = "\n".join(_write_block(block) for block in listed)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_esc(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n<link rel="icon" href="data:,">\n'
        f"<title>{_esc(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the report</a>\n'
        f'<nav aria-label="Contents"><ul>{contents}</ul></nav>\n<main id="main">\n{body}\n</main>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def _hash_source(text: str) -> str:
    """Source expression that allows exactly this inline text."""
    return "sha256-" + base64.b64encode(
        hashlib.sha256(text.encode(errors="backslashreplace")).digest()
    ).decode("ascii")


def _esc(text: str) -> str:
    return escape(drop_control_characters(text), quote=True)


def _write_block(block: Block) -> str:
    match block:
        case Heading():
            return f'<h{block.level} id="{_esc(block.anchor)}">{_esc(block.text)}</h{block.level}>'
        case Paragraph():
            kind = ' class="warning" role="note"' if block.is_warning else ""
            return f"<p{kind}>{_write_text(block.text)}</p>"
        case Bullets():
            return "<ul>" + "".join(f"<li>{_write_text(item)}</li>" for item in block.items) + "</ul>"
        case Table():
            return _write_table(block)
        case Figure():
            return _write_figure(block)
        case CodeBlock():
            return f"<pre><code>{_esc(block.text)}</code></pre>"
        case Listening():
            return _write_listening(block)


def _write_text(text: Text) -> str:
    return "".join(_write_span(span) for span in ((text,) if isinstance(text, str) else text))


def _write_span(span: Span) -> str:
    match span:
        case str():
            return _esc(span)
        case Strong():
            return f"<strong>{_esc(span.text)}</strong>"
        case Code():
            return f"<code>{_esc(span.text)}</code>"
        case Link():
            return f'<a href="{_esc(span.href)}">{_esc(span.text)}</a>'


def _write_table(table: Table) -> str:
    """A table that scrolls by itself; its headers are buttons that sort."""
    heads = "".join(
        f'<th scope="col"{_number_class(column.is_numeric)}><button type="button">'
        f"{_write_text(column.header)}</button></th>"
        for column in table.columns
    )
    numeric = [column.is_numeric for column in table.columns]
    rows = "\n".join(
        "<tr>"
        + "".join(
            _write_cell(cell, is_number, i == 0)
            for i, (cell, is_number) in enumerate(zip(row, numeric, strict=True))
        )
        + "</tr>"
        for row in table.rows
    )
    caption = _esc(table.caption)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table class="sortable">'
        f"<caption>{caption}</caption>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _number_class(is_numeric: bool) -> str:
    return ' class="number"' if is_numeric else ""


def _write_cell(cell: Cell, is_number: bool, is_first: bool) -> str:
    kinds = " ".join(["number"] * is_number + [cell.tone] * (cell.tone != "plain"))
    attributes = f' class="{kinds}"' if kinds else ""
    if cell.order is not None:
        attributes += f' data-order="{cell.order!r}"'
    if cell.hint:
        attributes += f' title="{_esc(cell.hint)}"'
    name = 'th scope="row"' if is_first else "td"
    return f"<{name}{attributes}>{_write_text(cell.text)}</{'th' if is_first else 'td'}>"


def _write_figure(figure: Figure) -> str:
    """The plot inline; its style is in the page's head, once for all plots."""
    svg = figure.svg.replace(f"<style>{PLOT_STYLE}</style>\n", "")
    return (
        f'<figure><div class="scroll" role="region" tabindex="0" aria-label="{_esc(figure.alt)}">{svg}</div>'
        f"<figcaption>{_esc(figure.caption)}</figcaption></figure>"
    )


def _write_listening(group: Listening) -> str:
    clips = "\n".join(_write_clip(clip, group.title) for clip in group.clips)
    return (
        f'<section class="listening"><h3 title="{_esc(group.hint)}">{_esc(group.title)}</h3>'
        f'<div class="clips">\n{clips}\n</div></section>'
    )


def _write_clip(clip: Clip, title: str) -> str:
    label = _esc(clip.label)
    if clip.sound is None:
        link = f'<a href="{_esc(clip.href)}">open the file</a>' if clip.href else "not in this report"
        return f'<figure class="clip"><figcaption>{label}</figcaption>{link}</figure>'
    picture = f'<img src="{clip.picture}" alt="Spectrogram of {label}">' if clip.picture else ""
    return (
        f'<figure class="clip"><figcaption>{label}</figcaption>{picture}'
        f'<audio controls preload="metadata" src="{clip.sound}" aria-label="{label}: {_esc(title)}"></audio>'
        "</figure>"
    )
