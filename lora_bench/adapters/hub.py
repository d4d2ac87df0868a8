"""Upload of a folder to the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path

from lora_bench.errors import ResourceError, UsageError

REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)


def check_repository(name: str) -> None:
    """Check that `name` can be a repository.

    Raises:
        UsageError: it cannot.
    """
    if not REPOSITORY.fullmatch(name):
        raise UsageError(f"--push-to-hub {name}: expected OWNER/NAME, such as ada/musicgen-chiptune")


def push_folder(folder: Path, repository: str, *, public: bool) -> str:
    """Create the repository if it does not exist, and upload the folder in one commit.

    The hub's address and the token are huggingface_hub's own (`HF_ENDPOINT`, `HF_TOKEN`, `hf auth login`).

    Args:
        folder: what `export_trial` wrote.
        repository: `OWNER/NAME`.
        public: visible to everybody; a repository that exists keeps its visibility.

    Returns:
        Address of the commit.

    Raises:
        ResourceError: offline, not logged in, refused, or the hub did not answer; the folder is kept.
    """
    # before huggingface_hub, which is slow to import
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE:
        raise ResourceError(
            f"--push-to-hub {repository}: HF_HUB_OFFLINE is set; {folder} is written, push it later without it"
        )
    api = HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Upload from lora_bench"
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
        raise ResourceError(
            f"--push-to-hub {repository}: the hub at {constants.ENDPOINT} refused it ({lines[0]}); {folder} is "
            "written; log in with `hf auth login`, check that you may write there, and push again with "
            f"`hf upload {repository} {folder}`"
        ) from error
    return str(commit.commit_url)
