"""A listening test as one HTML file that loads nothing and names nothing of the run.

The template escapes every value; what the script needs is JSON in a block that is not executed.  A content security
policy with the hashes of the page's own style and script is the second defence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from markupsafe import Markup

from lora_bench.listening.study import Study
from lora_bench.report.writers.html import load_templates

ANSWERS_SCHEMA = 1
QUESTIONS: Mapping[str, str] = {
    "preference": "Which do you prefer?",
    "fits_prompt": "Which fits the description better?",
    "fits_genre": "Which sounds more like the examples?",
}
SCALE = ("A, clearly", "A, slightly", "no difference", "B, slightly", "B, clearly")
NO_DIFFERENCE = 3
"""The middle of the scale, whose numbers are 1 to 5."""
_TEMPLATES = Path(__file__).parent / "templates"


def write_page(
    study: Study, sounds: Sequence[str], places: Sequence[tuple[int, int]], examples: Sequence[str]
) -> str:
    """Return the whole HTML document.

    Args:
        study: pairs and questions; of its pairs, only ids and prompts are written.
        sounds: data URIs of all clips.
        places: for each pair, the indices of its two sounds.
        examples: data URIs of recordings of the genre.
    """
    content = {
        "schema": ANSWERS_SCHEMA,
        "study": study.id,
        "questions": study.questions,
        "sounds": sounds,
        "pairs": [
            {"id": pair.id, "prompt": pair.prompt, "sounds": sides}
            for pair, sides in zip(study.pairs, places, strict=True)
        ],
    }
    return (
        load_templates(_TEMPLATES)
        .get_template("page.html.j2")
        .render(
            content=content,
            study=study,
            questions={name: QUESTIONS[name] for name in study.questions},
            scale=SCALE,
            examples=examples,
            style=Markup((_TEMPLATES / "page.css").read_text(encoding="utf-8")),
            script=Markup((_TEMPLATES / "page.js").read_text(encoding="utf-8")),
        )
    )
