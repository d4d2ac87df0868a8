"""Fetch a dataset from the Hugging Face hub, or find it in the hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

from lora_bench.errors import DatasetError

_COMMIT = re.compile(r"[0-9a-f]{40}")


def pin_dataset(name: str) -> str:
    """Return `owner/name@commit` for a dataset whose revision is missing, a branch or a tag; it is fetched.

    Args:
        name: `owner/name`, or `owner/name@revision`.

    Raises:
        DatasetError: see `fetch_dataset`.
    """
    repository, _, revision = name.partition("@")
    if _COMMIT.fullmatch(revision):
        return name
    return f"{repository}@{fetch_dataset(name).name}"  # the hub's cache has a folder per commit


def fetch_dataset(name: str) -> Path:
    """Return the folder of a dataset in the hub's cache, fetched if it is not there.

    Args:
        name: `owner/name`, or `owner/name@revision`.

    Raises:
        DatasetError: there is none; says how to get it.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    repository, _, revision = name.partition("@")
    looked = f"dataset.path: hf:{name}"
    command = f"hf download --repo-type dataset {repository}" + (
        f" --revision {revision}" if revision else ""
    )
    try:
        return Path(snapshot_download(repository, repo_type="dataset", revision=revision or None))
    except GatedRepoError as error:
        raise DatasetError(
            f"{looked}: the hub asks for an agreement first; accept it on https://huggingface.co/datasets/{repository} "
            "and log in with `hf auth login`"
        ) from error
    except HFValidationError as error:
        raise DatasetError(f"{looked}: not a hub id ({error}); expected the form hf:owner/name") from error
    except LocalEntryNotFoundError as error:
        offline = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the hub could not be reached"
        raise DatasetError(
            f"{looked}: not in the cache {constants.HF_HUB_CACHE}, and {offline}; where there is a network run "
            f"`{command}`, or give a local folder as dataset.path"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise DatasetError(
            f"{looked}: could not be fetched from the hub ({str(error).splitlines()[0]}); check the id and the "
            f"network, or run `{command}` yourself"
        ) from error
