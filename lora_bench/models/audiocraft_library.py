"""Import audiocraft if a spec names it, or say how to install it."""

from __future__ import annotations

import importlib
import logging

from lora_bench.errors import ModelError
from lora_bench.models.quiet import keep_numba_folder

# without --inexact it would remove the packages of other extras
INSTALL = "uv sync --inexact --extra audiocraft"


def require_audiocraft() -> None:
    """Import audiocraft, which takes seconds the first time.

    Raises:
        ModelError: it is not installed, or cannot be imported; says how to install it.
    """
    # xformers warns that its compiled part does not fit this torch, but attention is torch's own here
    logging.getLogger("xformers").setLevel(logging.ERROR)
    try:
        with keep_numba_folder():
            importlib.import_module("audiocraft.models.builders")
    except ModuleNotFoundError as error:
        missing = error.name or "a module"
        raise ModelError(
            f"model.backend: audiocraft: {missing} is not installed; run `{INSTALL}` in the repository (it lifts "
            "audiocraft's pins to a torch of 2023, which plain pip cannot), or use model.backend transformers"
        ) from error
    except (ImportError, AttributeError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ModelError(
            f"model.backend: audiocraft: it is installed but cannot be imported ({reason}); install the versions "
            f"of the lock with `{INSTALL}` in the repository, or use model.backend transformers"
        ) from error
