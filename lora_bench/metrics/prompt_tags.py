"""The tags of a music tagger that prompts name."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lora_bench.errors import UnscoredError
from lora_bench.metrics.names import TAG_ADHERENCE

TAGS = (
    "guitar", "classical", "slow", "techno", "strings", "drums", "electronic", "rock", "fast", "piano", "ambient",
    "beat", "violin", "vocal", "synth", "female", "indian", "opera", "male", "singing", "vocals", "no vocals",
    "harpsichord", "loud", "quiet", "flute", "woman", "male vocal", "no vocal", "pop", "soft", "sitar", "solo", "man",
    "classic", "choir", "voice", "new age", "dance", "male voice", "female vocal", "beats", "harp", "cello",
    "no voice", "weird", "country", "metal", "female voice", "choral",
)  # fmt: skip
"""What the checkpoint `musicnn-mtt` gives probabilities of: the 50 most frequent tags of MagnaTagATune."""
OTHER_FORMS = {
    "string": "strings",
    "drum": "drums",
    "guitars": "guitar",
    "violins": "violin",
    "flutes": "flute",
    "cellos": "cello",
    "synths": "synth",
    "synthesizer": "synth",
    "synthesizers": "synth",
}
"""Words that count as the tag of the same instrument."""
NO_TAGS = f"{TAG_ADHERENCE}: the prompt names none of the tagger's {len(TAGS)} tags"

_WORDS = "|".join(
    word.replace(" ", r"[\s-]+") for word in sorted((*TAGS, *OTHER_FORMS), key=len, reverse=True)
)
_QUALITIES = (
    "classical|slow|techno|electronic|rock|fast|ambient|female|indian|male|loud|quiet|pop|soft|solo|classic|dance|weird|"
    "country|metal"
)
_ARTICLE = r"(?:(?:a|an|any|the)\s+)?"
# `male vocals`, `heavy drums`: tags that are qualities, or one other word, then what they are of
_THING = (
    rf"{_ARTICLE}(?:(?:{_QUALITIES})\s+)*(?:(?!(?:{_WORDS})\b)\w+\s+(?=(?:{_WORDS})\b))?(?:{_WORDS}|\w+)\b"
)
_OTHERS = rf"(?:\s*(?:,?\s*\bn?or\b|/)\s*{_THING})*"
# tags come first, so that `no vocals` is the tag of that name
_NAMED = re.compile(
    rf"\b(?:(?P<tag>(?P<no>no[\s-]+(?:vocals?|voice))|{_WORDS})\b(?(no){_OTHERS})"
    rf"|(?:no|without)\s+{_THING}{_OTHERS}|(?:no|not|non|without)[\s-]+{_ARTICLE}\w+\b)",
    re.IGNORECASE,
)


def find_tags(prompt: str) -> tuple[str, ...]:
    """Return the tags that occur as whole words in a prompt, each once, in the order of their appearance.

    The longest tag counts: `male voice` names neither `male` nor `voice`.  A word after no, not, non or without does
    not count, unless both together are a tag (`no vocals`).  After no and without, neither does what this word is said
    of (`no male vocals`, `without heavy drums`), nor what follows by `or`.
    """
    words = (
        re.sub(r"[\s-]+", " ", found["tag"].lower()) for found in _NAMED.finditer(prompt) if found["tag"]
    )
    return tuple(dict.fromkeys(OTHER_FORMS.get(word, word) for word in words))


def choose_prompts(metric: str, prompts: Sequence[str]) -> tuple[tuple[str, ...], list[str]]:
    """Return those of some prompts that a metric can rate, and a note if there are others.

    Raises:
        UnscoredError: there are none.
    """
    if metric != TAG_ADHERENCE:
        return tuple(prompts), []
    rated = tuple(filter(find_tags, prompts))
    if not rated:
        raise UnscoredError(
            NO_TAGS if len(prompts) == 1 else NO_TAGS.replace("the prompt names", "the prompts name")
        )
    n_others = len(prompts) - len(rated)
    note = f"{n_others} of {len(prompts)} prompts name none of the tagger's {len(TAGS)} tags and are left out"
    return rated, [note] if n_others else []
