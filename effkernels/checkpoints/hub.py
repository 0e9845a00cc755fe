"""Files of model repositories on the Hugging Face hub, through huggingface_hub and its cache."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PREFIXES = ("hf-hub:", "hf_hub:")
CONFIG = "config.json"
WEIGHTS = ("model.safetensors", "pytorch_model.bin")

_REFERENCE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True)
class HubModel:
    """The relevant files of a repository: its configuration (empty if it has none) and its weights."""

    config: Mapping[str, Any]
    weights: Path


def is_hub_reference(weights: str) -> bool:
    """Whether ``weights`` is of the form ``hf-hub:owner/name``."""
    return weights.startswith(PREFIXES)


def fetch_model(reference: str) -> HubModel:
    """Fetch ``hf-hub:owner/name`` or ``hf-hub:owner/name@revision``.

    Raises:
        ValueError: the reference is malformed; there is no such repository, revision or weights
            file; or the hub cannot be reached.
        ImportError: huggingface_hub is not installed.
    """
    match = _REFERENCE.fullmatch(reference.split(":", 1)[1])
    if match is None:
        raise ValueError(
            f"malformed hub reference {reference!r}; expected hf-hub:owner/name or "
            f"hf-hub:owner/name@revision"
        )
    repo, revision = match["repo"], match["revision"]
    weights = next(
        (path for name in WEIGHTS if (path := fetch_file(repo, name, revision, optional=True))),
        None,
    )
    if weights is None:
        raise ValueError(
            f"{reference}: found neither {' nor '.join(WEIGHTS)} (on the hub, or without network "
            f"in the cache). {_advice(repo)}"
        )
    config = fetch_file(repo, CONFIG, revision, optional=True)
    return HubModel(read_config(config) if config else {}, weights)


def fetch_folder(folder: Path) -> HubModel:
    """Like :func:`fetch_model`, from a local copy of a repository.

    Raises:
        ValueError: the folder holds no weights file with a known name.
    """
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if weights is None:
        raise ValueError(
            f"{folder} is a folder without {' or '.join(WEIGHTS)}; pass a checkpoint file, or a "
            f"copy of a hub repository"
        )
    config = folder / CONFIG
    return HubModel(read_config(config) if config.is_file() else {}, weights)


def read_config(path: Path) -> Mapping[str, Any]:
    """Read a ``config.json``.

    Raises:
        ValueError: it is not a JSON object.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error})") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return config


def fetch_file(
    repo: str, filename: str, revision: str | None = None, *, optional: bool = False
) -> Path | None:
    """Path of one file of a repository, from the local cache if it is there.

    Args:
        repo: ``owner/name``.
        filename: its path in the repository.
        revision: branch, tag or commit hash; None for the default branch.
        optional: return None if the repository (or, without network, the cache) has no such file.

    Raises:
        ValueError: there is no such repository, revision or file, or the hub cannot be reached.
        ImportError: huggingface_hub is not installed.
    """
    try:
        from huggingface_hub import errors as hub_errors
        from huggingface_hub import hf_hub_download
    except ImportError:
        raise ImportError(
            "weights from the Hugging Face hub need huggingface_hub, which is not installed: "
            'pip install "effkernels[hub]"'
        ) from None

    place = f"{repo}/{filename}" + (f" at {revision}" if revision else "")
    try:
        return Path(hf_hub_download(repo, filename, revision=revision))
    except hub_errors.LocalEntryNotFoundError:  # before EntryNotFoundError, its base class
        if optional:
            return None
        raise ValueError(
            f"{place} is not in the local cache and the hub cannot be reached. {_advice(repo)}"
        ) from None
    except hub_errors.EntryNotFoundError:
        if optional:
            return None
        raise ValueError(f"the hub has no {place}") from None
    except hub_errors.RevisionNotFoundError:
        raise ValueError(f"the hub has no revision {revision!r} of {repo}") from None
    except hub_errors.RepositoryNotFoundError:
        raise ValueError(
            f"the hub has no repository {repo}, or it is private (log in with 'hf auth login')"
        ) from None
    except hub_errors.HFValidationError as error:
        raise ValueError(f"malformed hub repository name {repo!r}: {_first_line(error)}") from None
    except Exception as error:
        # A broken connection raises errors of whichever HTTP client huggingface_hub uses.
        raise ValueError(
            f"could not fetch {place} from the hub ({_first_line(error)}). {_advice(repo)}"
        ) from error


def _advice(repo: str) -> str:
    return (
        f"Without network: run 'hf download {repo}' where there is one, then copy the folder and "
        f"pass it as weights=, or copy the whole cache and set HF_HUB_CACHE to it"
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
