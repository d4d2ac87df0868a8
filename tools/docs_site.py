"""Hooks of `mkdocs build`: repository files as pages, the reference of specs, and a check that the site works offline.

Pages outside of docs/ (README.md, design/, benchmarks/, reports/) stay where they are.  They become pages of the site
under the same path.  Links between pages are rewritten to match, so that they work on a code host and on the site.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

Schema = Mapping[str, Any]

ROOT = Path(__file__).parents[1]
SCHEMA_FILE = "lora_bench/spec/schema.json"
PAGES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "design/*.md",
    "benchmarks/README.md",
    "benchmarks/results/**/*.*",
    "lora_bench/models/pocket/*.md",
    "reports/*/report.html",
)
LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)")
MARK = re.compile(r"^( *)<!-- not run: (.+) -->$", re.MULTILINE)
REFERENCE = "<!-- reference of all fields -->"
TRIAL_PARTS = ("model", "dataset", "generation", "lora", "train")
MAX_NAMED_VALUES = 8
LOADED = re.compile(
    r"<(?:script|img|iframe|audio|video|source|embed)\b[^>]*\bsrc=[\"']?((?:https?:)?//[^\"' >]+)"
    r"|<link\b(?![^>]*rel=[\"']?(?:canonical|next|prev)\b)[^>]*\bhref=[\"']?((?:https?:)?//[^\"' >]+)"
    r"|(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)"
)


def site_path(path: str) -> str:
    """Return the place in the site of a file of the repository."""
    if path == "README.md":
        return "index.md"
    if path.startswith("reports/"):  # on the site the real page stands for the markdown of the same report
        return path.replace("/report.md", "/report.html")
    return path.removeprefix("docs/")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in docs/."""
    for pattern in PAGES:
        for path in sorted(ROOT.glob(pattern)):
            uri = site_path(path.relative_to(ROOT).as_posix())
            if files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrite links, show the marks of blocks that need more than a test has, and insert the reference of specs."""
    source = page.file.abs_src_path
    if source is None:
        return markdown
    folder = Path(source).relative_to(ROOT).parent.as_posix()
    own_folder = posixpath.dirname(page.file.src_uri) or "."

    def move(link: re.Match[str]) -> str:
        target = site_path(posixpath.normpath(posixpath.join(folder, link[2])))
        return link[1] + posixpath.relpath(target, own_folder)

    markdown = LINK.sub(move, markdown)
    markdown = MARK.sub(lambda mark: f"{mark[1]}<small>This {mark[2]}:</small>\n", markdown)
    if REFERENCE in markdown:
        schema = json.loads((ROOT / SCHEMA_FILE).read_text(encoding="utf-8"))
        markdown = markdown.replace(REFERENCE, "\n".join(write_reference(schema)))
    return markdown


def on_post_build(config: MkDocsConfig) -> None:
    """Check that no page loads anything from another host.

    Raises:
        PluginError: names pages and addresses.
    """
    site = Path(config.site_dir)
    loaded = [
        f"{path.relative_to(site)}: {''.join(found)}"
        for path in sorted([*site.rglob("*.html"), *site.rglob("*.css")])
        for found in LOADED.findall(path.read_text(encoding="utf-8"))
    ]
    if loaded:
        raise PluginError(
            "The site must work offline, but pages load from other hosts:\n" + "\n".join(loaded)
        )


def write_reference(schema: Schema) -> Iterator[str]:
    """Return the fields of a spec as markdown, section by section.

    Args:
        schema: the JSON Schema of specs.
    """
    yield from ("### Top level", "", *_write_table("", schema, schema))
    for name, field in schema["properties"].items():
        for path, section in _find_sections(name, field, schema):
            description = " ".join(section.get("description", "").split())
            yield from (f"### {path}", "", description, "", *_write_table(path, section, schema))


def _find_sections(path: str, field: Schema, schema: Schema) -> Iterator[tuple[str, Schema]]:
    """Yield the mapping that a field holds, then those within it."""
    options = field.get("anyOf", [field])
    for reference in {option.get("$ref") or option.get("items", {}).get("$ref") for option in options} - {
        None
    }:
        section = schema["$defs"][reference.rsplit("/", 1)[1]]
        yield path, section
        for name, inner in section["properties"].items():
            if _is_listed(path, name):
                yield from _find_sections(f"{path}.{name}", inner, schema)


def _is_listed(path: str, name: str) -> bool:
    """Return whether a section lists a field; a trial repeats fields of other sections, nested and dotted."""
    return path in {"", "defaults"} or (name not in TRIAL_PARTS and "." not in name)


def _write_table(path: str, section: Schema, schema: Schema) -> Iterator[str]:
    required = section.get("required", [])
    yield from ("| field | type | default | meaning |", "|:---|:---|:---|:---|")
    for name, field in section["properties"].items():
        if not _is_listed(path, name):
            continue
        kind = "required" if name in required else _write_default(field)
        meaning = " ".join(field.get("description", "").split()) or _describe_target(field, schema)
        cells = (f"`{name}`", _describe_type(field), kind, meaning)
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    if not all(_is_listed(path, name) for name in section["properties"]):
        parts = ", ".join(f"`{name}`" for name in TRIAL_PARTS)
        yield f"| any field of {parts} | | | dotted: `lora.rank`; in a variant also nested: `lora: {{rank: 8}}` |"
    yield ""


def _write_default(field: Schema) -> str:
    default = field.get("default")
    return "" if "default" not in field or isinstance(default, dict) else f"`{json.dumps(default)}`"


def _describe_target(field: Schema, schema: Schema) -> str:
    reference = field.get("$ref")
    section = schema["$defs"][reference.rsplit("/", 1)[1]] if reference else {}
    return section.get("description", "").split("\n\n")[0]


def _describe_type(field: Schema) -> str:
    """Return a field's type in words: `number, 1 to 30`."""
    if "anyOf" in field:
        types = dict.fromkeys(map(_describe_type, field["anyOf"]))
        return (", or " if any("," in text for text in types) else " or ").join(types)
    if "enum" in field and len(field["enum"]) <= MAX_NAMED_VALUES:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = field.get("type", "mapping")
    if kind == "array":
        return f"list of {_describe_type(field['items'])}"
    names = {"object": "mapping", "string": "text", "boolean": "true or false", "integer": "whole number"}
    return f"{names.get(kind, kind)}{_describe_range(field)}"


def _describe_range(field: Schema) -> str:
    bounds = {
        "minimum": "at least {}",
        "exclusiveMinimum": "above {}",
        "maximum": "at most {}",
        "exclusiveMaximum": "below {}",
    }
    words = [
        text.format(f"{field[key]:g}") for key, text in bounds.items() if key in field and field[key] < 2**31
    ]
    return f", {' and '.join(words)}" if words else ""
