"""The section `dataset.prepare`."""

from __future__ import annotations

import operator
from typing import Annotated

from pydantic import Field

from lora_bench.spec.section import Section, is_none

# fields are excluded where they say nothing, so that finished runs from before them are still found


class PrepareSpec(Section):
    """Changes to the sound of every recording, before it is split, cut and encoded; off by default.

    They are made in this order, and to training, selection and held-out tracks alike. The files stay as they are.
    """

    remove_dc: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Subtract the mean of each channel."""
    trim_silence_db: Annotated[float | None, Field(ge=-100.0, le=-20.0, exclude_if=is_none)] = None
    """Cut the start and the end off where the level stays below this, in dB relative to the track's peak."""
    loudness_lufs: Annotated[float | None, Field(ge=-40.0, le=-5.0, exclude_if=is_none)] = None
    """Integrated loudness by ITU-R BS.1770 to bring every track to, such as -16. The gain is smaller where the peak
    would rise above -1 dBFS."""


def is_unset(prepare: object) -> bool:
    """Return whether a section asks for nothing."""
    return prepare == PrepareSpec()
