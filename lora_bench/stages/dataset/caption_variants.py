"""More captions of a track: by other templates, and with fields left out at random."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from lora_bench.spec.caption_template import CaptionTemplate
from lora_bench.stages.dataset.composing import Described, compose
from lora_bench.stages.dataset.field_names import name_field

N_VARIANTS = 8
_ALWAYS = frozenset({"trigger"})


def vary(
    templates: Sequence[CaptionTemplate], track: Described, content_hash: str, dropout: float | None
) -> Iterator[tuple[CaptionTemplate, str]]:
    """Yield templates and captions of a track that say something; not all of them differ.

    Args:
        templates: the first is that of the main caption.
        track: with its fields.
        content_hash: of its file; decides which fields are left out, so that a track keeps its captions.
        dropout: probability that a field is left out; None leaves none out.
    """
    for template in templates[1:]:
        text, _ = compose(template, track)
        if text:
            yield template, text
    for index in range(N_VARIANTS if dropout is not None else 0):
        template = templates[index % len(templates)]
        dropped = {
            key
            for name in template.fields
            if (key := name_field(name)) not in _ALWAYS and _draw(content_hash, index, key) < (dropout or 0.0)
        }
        kept = {name: value for name, value in track.fields.items() if name not in dropped}
        text, _ = compose(template, replace(track, fields=kept))
        if text:
            yield template, text


def _draw(*parts: object) -> float:
    """Return a number from 0 to 1 that depends on nothing but `parts`."""
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
