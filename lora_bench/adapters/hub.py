"""Upload of a folder to the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from lora_bench.errors import ResourceError, UsageError

REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
Kind = Literal["model", "dataset", "space"]


def check_repository(name: str, option: str = "--push-to-hub") -> None:
    """Check that `name` can be a repository.

    Raises:
        UsageError: it cannot.
    """
    if not REPOSITORY.fullmatch(name):
        raise UsageError(f"{option} {name}: expected OWNER/NAME, such as ada/musicgen-chiptune")


def check_login(option: str) -> None:
    """Check that a token is here before anything is prepared.

    Raises:
        ResourceError: offline, or not logged in.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise ResourceError(f"{option}: HF_HUB_OFFLINE is set; push without it, or look with --dry-run")
    if get_token() is None:
        raise ResourceError(
            f"{option}: there is no token of the hub here; log in with `hf auth login` or set HF_TOKEN, with a token "
            "that may write, or look with --dry-run"
        )


def push_folder(
    folder: Path,
    repository: str,
    *,
    public: bool,
    kind: Kind = "model",
    option: str = "--push-to-hub",
    is_kept: bool = True,
) -> str:
    """Create the repository if it does not exist, and upload the folder in one commit.

    The hub's address and the token are huggingface_hub's own (`HF_ENDPOINT`, `HF_TOKEN`, `hf auth login`).

    Args:
        folder: what is uploaded.
        repository: `OWNER/NAME`.
        public: visible to everybody; a repository that exists keeps its visibility.
        kind: of the repository; a space is a static page.
        option: of the command line, for messages.
        is_kept: whether the folder stays after a failure.

    Returns:
        Address of the commit.

    Raises:
        ResourceError: offline, not logged in, refused, or the hub did not answer.
    """
    # before huggingface_hub, which is slow to import
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE:
        raise ResourceError(
            f"{option} {repository}: HF_HUB_OFFLINE is set; {folder} is written, push it later without it"
        )
    api = HfApi()
    try:
        api.create_repo(
            repository, repo_type=kind, private=not public, exist_ok=True,
            space_sdk="static" if kind == "space" else None,
        )  # fmt: skip
        commit = api.upload_folder(
            repo_id=repository, repo_type=kind, folder_path=folder, commit_message="Upload from lora_bench"
        )
    except (
        HfHubHTTPError,
        LocalTokenNotFoundError,
        OfflineModeIsEnabled,
        OSError,
        ValueError,
        RuntimeError,
    ) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        kept = f"{folder} is written; " if is_kept else ""
        again = f"`hf upload {repository} {folder}`" if is_kept else "the same command"
        raise ResourceError(
            f"{option} {repository}: the hub at {constants.ENDPOINT} refused it ({lines[0]}); {kept}log in with "
            f"`hf auth login`, check that you may write there, and push again with {again}"
        ) from error
    return str(commit.commit_url)
