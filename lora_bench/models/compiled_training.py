"""Decoder layers as torch compiles them, for training steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

COMPILER = "inductor"


class CompiledLayers:
    """Switches layers between their own forward pass and a compiled one.

    It compiles layer by layer, because all layers of a decoder share the compiled code; the rest of a step is small.
    """

    def __init__(self) -> None:
        self._layers: Sequence[nn.Module] = ()
        self._forwards: Sequence[Callable[..., Any]] = ()

    def use(self, layers: Sequence[nn.Module]) -> None:
        """Switch to compiled passes; torch compiles them at their first call."""
        if not self._forwards:
            self._layers = layers
            self._forwards = [torch.compile(layer.forward, backend=COMPILER) for layer in layers]
        for layer, forward in zip(self._layers, self._forwards, strict=True):
            layer.forward = forward  # before the class's; checkpointing stays around it

    def leave(self) -> None:
        """Switch back to the layers' own passes."""
        for layer in self._layers:
            vars(layer).pop("forward", None)

    def forget(self) -> None:
        """Switch back, and compile again next time, because modules have changed."""
        self.leave()
        self._layers = self._forwards = ()
