"""`clap`: LAION's music CLAP, audio and text in one space.

laion_clap fetches tokenizers from the hub when it is imported, and RoBERTa when its model is built; without a network
it waits for minutes.  Here everything must be on this machine before the import, and the hub is offline meanwhile.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from lora_bench.artifacts import Embeddings
from lora_bench.encoders.checkpoints import need_checkpoint, need_package
from lora_bench.encoders.pretrained import NetworkEncoder
from lora_bench.errors import UnscoredError
from lora_bench.models.quiet import keep_numba_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lora_bench.encoders.protocol import Provenance

FILE = "music_audioset_epoch_15_esc_90.14.pt"
URL = f"https://huggingface.co/lukewys/laion_clap/resolve/main/{FILE}"
# files that laion_clap's `training/data.py` and `clap_module/model.py` load by name
HUB_FILES = (
    ("bert-base-uncased", "vocab.txt"),
    ("facebook/bart-base", "vocab.json"),
    ("roberta-base", "vocab.json"),
    ("roberta-base", "config.json"),
)
WINDOW_S = 10.0  # the network's input; laion_clap itself repeats shorter clips


class ClapEncoder(NetworkEncoder):
    """One 512-d unit vector per clip of at most 10 s, or per 10 s of a longer file; repeatable.

    Longer audio is cut here, because laion_clap takes a *random* 10 s of it.
    """

    dim = 512
    sample_rate_hz = 48_000
    min_samples = 24_000
    window_s = WINDOW_S

    def __init__(self, name: str = "clap", *, device: str = "auto") -> None:
        need_package(name, "laion_clap")
        super().__init__(name, need_checkpoint(name, FILE, URL), device)
        check_hub_files(name)
        self.network = load_clap(name, self.checkpoint, self.device)

    def describe(self) -> Provenance:
        """Network and window."""
        return {"network": "HTSAT-base, no fusion", "window_s": WINDOW_S, "short_clips": "repeated to 10 s"}

    def forward_batch(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """[B, S] -> [B, 1, 512]."""
        vectors = self.network.get_audio_embedding_from_data(torch.from_numpy(batch), use_tensor=True)
        return vectors.float().cpu().numpy()[:, None]

    def embed_text(self, texts: list[str]) -> Embeddings:
        """Return one unit vector per text."""
        with torch.inference_mode():
            vectors = self.network.get_text_embedding(texts, use_tensor=True)
        return Embeddings(
            values=vectors.float().cpu().numpy().reshape(len(texts), self.dim),
            clip_index=np.arange(len(texts), dtype=np.int64),
            clip_names=tuple(texts),
            groups=tuple(texts),
            provenance=self.provenance,
        )


def check_hub_files(name: str) -> None:
    """Check that the hub's cache has the files that laion_clap loads by name.

    Raises:
        UnscoredError: a file is missing; names the commands that fetch it.
    """
    from huggingface_hub import try_to_load_from_cache

    missing = list(
        dict.fromkeys(
            repository
            for repository, file in HUB_FILES
            if not isinstance(try_to_load_from_cache(repository, file), str)
        )
    )
    if missing:
        commands = "; ".join(f"hf download {repository}" for repository in missing)
        raise UnscoredError(
            f"{name}: laion_clap loads {', '.join(missing)} by name, but the hub's cache here lacks it; "
            f"with a network once: {commands}"
        )


def load_clap(name: str, checkpoint: Path, device: torch.device) -> Any:
    """Load laion_clap's module with the checkpoint's weights.

    Raises:
        UnscoredError: laion_clap, a file that it loads by name, or the checkpoint cannot be loaded.
    """
    with hub_offline(), keep_numba_folder(), contextlib.redirect_stdout(io.StringIO()):
        try:
            import laion_clap

            network = laion_clap.CLAP_Module(enable_fusion=False, amodel="HTSAT-base", device=device)
            network.load_ckpt(str(checkpoint), verbose=False)
        except (ImportError, OSError, RuntimeError, KeyError, ValueError) as error:
            raise UnscoredError(f"{name}: laion_clap cannot be loaded with {checkpoint} ({error})") from error
    return network.to(device).eval()


@contextlib.contextmanager
def hub_offline() -> Generator[None]:
    """Keep huggingface_hub offline."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
