"""audiocraft, imported only where a spec asks for it, or a clear word on how to get it."""

from __future__ import annotations

import importlib
import logging

from lora_bench.errors import ModelError
from lora_bench.models.quiet import keep_numba_folder

# without --inexact it would take out what other extras brought
INSTALL = "uv sync --inexact --extra audiocraft"


def require_audiocraft() -> None:
    """Import audiocraft; seconds, the first time.

    Raises:
        ModelError: it is not installed, or cannot be imported; says what installs it.
    """
    # xformers says that its compiled part does not fit this torch; attention is torch's own here
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
