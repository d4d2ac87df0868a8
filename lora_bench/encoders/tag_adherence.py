"""tag-adherence: how probable a music tagger finds the tags that a clip's prompt names.

The tagger is `musicnn-mtt`.  A clip's rating is the mean of its probabilities over its windows and over the tags of the
prompt, as they are: some tags are more probable than others for any music, so differences between clips of one prompt
mean more than levels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from lora_bench.artifacts import AudioClip, Embeddings
from lora_bench.encoders.musicnn import MusicnnEncoder
from lora_bench.errors import UnscoredError
from lora_bench.metrics.names import TAG_ADHERENCE
from lora_bench.metrics.prompt_tags import NO_TAGS, find_tags

if TYPE_CHECKING:
    from lora_bench.encoders.protocol import Provenance

TAGGER = "musicnn-mtt"


def open_tagger(*, device: str = "auto") -> MusicnnEncoder:
    """Return the tagger.

    Raises:
        UnscoredError: its weights are unavailable.
    """
    return MusicnnEncoder(TAGGER, device=device)


class TagAdherence:
    """Rates the clips of one prompt.

    Args:
        prompt: text that the clips were generated from.
        tagger: see `open_tagger`.

    Raises:
        UnscoredError: the prompt names no tag.
    """

    name = TAG_ADHERENCE
    dim = 1

    def __init__(self, prompt: str, tagger: MusicnnEncoder) -> None:
        self.tags = find_tags(prompt)
        if not self.tags:
            raise UnscoredError(NO_TAGS)
        self.sample_rate_hz = tagger.sample_rate_hz
        self._tagger = tagger
        self._columns = [tagger.tags.index(tag) for tag in self.tags]

    @property
    def provenance(self) -> Provenance:
        """The tagger, and the tags of the prompt."""
        return {**_describe(self._tagger), "tags": ", ".join(self.tags)}

    def embed(self, clips: Iterable[AudioClip]) -> Embeddings:
        """Return the mean probability of the prompt's tags for each clip, [N, 1]; see `Encoder.embed`."""
        vectors, probabilities = self._tagger.embed_and_tag(clips)
        rows = probabilities[:, self._columns].mean(axis=1, keepdims=True)
        return Embeddings(rows, np.arange(len(rows)), vectors.clip_names, vectors.groups, self.provenance)


def embed_tags(tagger: MusicnnEncoder) -> Embeddings:
    """Return the best rating of each tag, named by the tags: comparisons need equal ones."""
    ones = np.ones((len(tagger.tags), 1), dtype=np.float32)
    return Embeddings(ones, np.arange(len(ones)), tagger.tags, tagger.tags, _describe(tagger))


def _describe(tagger: MusicnnEncoder) -> Provenance:
    return {
        **tagger.provenance,
        "encoder": TAG_ADHERENCE,
        "layer": "probabilities of tags (50), mean over windows",
        "higher_is_better": 1,
    }
