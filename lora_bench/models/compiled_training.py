"""Decoder layers as torch compiles them, for training steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

COMPILER = "inductor"


class CompiledLayers:
    """Switches layers between their own forward pass and a compiled one.

    Layer by layer, because all of a decoder's are alike and share what is compiled; the rest of a step is small.
    """

    def __init__(self) -> None:
        self._layers: Sequence[nn.Module] = ()
        self._forwards: Sequence[Callable[..., Any]] = ()

    def use(self, layers: Sequence[nn.Module]) -> None:
        """Compiled passes from here on; they are compiled when they are first called."""
        if not self._forwards:
            self._layers = layers
            self._forwards = [torch.compile(layer.forward, backend=COMPILER) for layer in layers]
        for layer, forward in zip(self._layers, self._forwards, strict=True):
            layer.forward = forward  # before the class's; checkpointing stays around it

    def leave(self) -> None:
        """The layers' own passes."""
        for layer in self._layers:
            vars(layer).pop("forward", None)

    def forget(self) -> None:
        """Leave them, and compile anew next time: modules have changed."""
        self.leave()
        self._layers = self._forwards = ()
