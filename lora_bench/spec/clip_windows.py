"""Clips that are longer than MusicGen was trained on, made in windows as audiocraft does it.

Each window but the first begins with the last frames of the one before, which are given, and continues them.
"""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_S = 30.0
"""Length of a window: that of the clips which MusicGen was trained on."""


@dataclass(frozen=True)
class Window:
    """A part of a clip, in frames.

    Attributes:
        begin: where it begins in the clip.
        n_frames: its length.
        n_given: frames at its beginning that the window before has made.
    """

    begin: int
    n_frames: int
    n_given: int


def cut_windows(n_frames: int, longest: int, overlap: int) -> list[Window]:
    """Cut a clip of `n_frames` into windows of at most `longest` frames, of which `overlap` are shared by two."""
    windows = [Window(0, min(n_frames, longest), 0)]
    while (begin := windows[-1].begin + longest - overlap) + overlap < n_frames:
        windows.append(Window(begin, min(longest, n_frames - begin), overlap))
    return windows
