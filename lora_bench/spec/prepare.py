"""The section `dataset.prepare`."""

from __future__ import annotations

import operator
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from lora_bench.spec.section import Section, is_none

Argument = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
# fields are excluded where they say nothing, so that finished runs from before them are still found


class PrepareSpec(Section):
    """Changes to the sound of every recording, before it is split, cut and encoded; off by default.

    They are made in this order, and to training, selection and held-out tracks alike. The files stay as they are.
    """

    command: Annotated[list[Argument] | None, Field(min_length=1, exclude_if=is_none)] = None
    """A program and its arguments that makes another sound of each track: `{path}` stands for the file, `{output}` for
    the wav to write. It runs once per track and command, without a shell, and may take ten minutes."""
    vocals: Annotated[Literal["remove"] | None, Field(exclude_if=is_none)] = None
    """`remove` leaves vocals out, with torchaudio's Hybrid Demucs, whose weights have to be on the machine."""
    remove_dc: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Subtract the mean of each channel."""
    trim_silence_db: Annotated[float | None, Field(ge=-100.0, le=-20.0, exclude_if=is_none)] = None
    """Cut the start and the end off where the level stays below this, in dB relative to the track's peak."""
    loudness_lufs: Annotated[float | None, Field(ge=-40.0, le=-5.0, exclude_if=is_none)] = None
    """Integrated loudness by ITU-R BS.1770 to bring every track to, such as -16. The gain is smaller where the peak
    would rise above -1 dBFS."""

    @property
    def is_processed(self) -> bool:
        """Return whether another sound is made of each track, which is kept on its own."""
        return self.command is not None or self.vocals is not None


def is_unset(prepare: object) -> bool:
    """Return whether a section asks for nothing."""
    return prepare == PrepareSpec()
