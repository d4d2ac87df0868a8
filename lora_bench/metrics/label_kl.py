"""`label-kl`: KL divergence between the mean probabilities of labels in the references and in the clips, in nats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lora_bench.errors import UnscoredError

if TYPE_CHECKING:
    from numpy.typing import NDArray

EPSILON = 1e-6
"""Added to every probability, as audiocraft does."""
TOLERANCE = 1e-3


class LabelKl:
    """KL(references || clips) of the mean probabilities, for encoders of probabilities: `passt`, `musicnn-tags`.

    The PaSST-KL of papers compares each clip with the recording that its caption describes.  Prompts here have no such
    recordings, so whole sets are compared, and the numbers are not those of papers.
    """

    def __init__(self, _settings: object) -> None:
        pass

    def measure(self, generated: NDArray[np.float64], reference: NDArray[np.float64]) -> float:
        """Return the divergence of [M, D] from [N, D].

        Raises:
            UnscoredError: rows are no probabilities.
        """
        for vectors in (generated, reference):
            if vectors.min() < 0.0 or np.abs(vectors.sum(axis=1) - 1.0).max() > TOLERANCE:
                raise UnscoredError(
                    "label-kl: vectors are no probabilities (not negative, with the sum 1); use an encoder of "
                    "probabilities, as in `label-kl/passt` and `label-kl/musicnn-tags`"
                )
        q, p = (side.mean(axis=0) + EPSILON for side in (generated, reference))
        return float((p * np.log(p / q)).sum())
