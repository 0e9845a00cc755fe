"""What a training leaves on disk, so that it can go on from there: all of it, or nothing."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

RESUME, WEIGHTS = "resume.pt", "model.safetensors"
_VERSION = 1


@dataclass
class Position:
    """How far a training is: ``step`` steps of ``epoch`` are done, and their sums of loss and pictures."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    pictures: int = 0
    seconds: float = 0.0


@dataclass
class State:
    """All that a training needs to go on.

    Args:
        arguments: those that decide what is learnt; see :func:`check_arguments`.
        position: how far it is.
        tensors: state dicts by name: model, average, optimizer, scheduler, scaler.
        history: one row for each finished epoch.
        problems: why pictures could not be read.
    """

    arguments: Mapping[str, Any]
    position: Position
    tensors: Mapping[str, Any]
    history: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def save(state: State, path: Path) -> None:
    """Write ``path`` atomically: after a crash, a kill or on a full disk it is what it was before.

    Raises:
        OSError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.partial")
    document = {
        "version": _VERSION,
        "arguments": dict(state.arguments),
        "position": vars(state.position),
        "tensors": dict(state.tensors),
        "history": state.history,
        "problems": state.problems,
    }
    try:
        with partial.open("wb") as file:
            torch.save(document, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except (OSError, RuntimeError) as error:  # torch's writer hides the system's error in its own
        with suppress(OSError):
            partial.unlink()
        reason = " ".join(str(error).split())
        raise OSError(f"cannot write {path}, which is as it was before: {reason}") from None


def load(path: Path) -> State:
    """Read what :func:`save` wrote. No code in the file is run.

    Raises:
        ValueError: it is damaged, or of another version.
    """
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
        if document["version"] != _VERSION:
            raise ValueError(
                f"{path} is of version {document['version']}, this effkernels goes on from version {_VERSION}"
            )
        return State(
            document["arguments"],
            Position(**document["position"]),
            document["tensors"],
            document["history"],
            document["problems"],
        )
    except (OSError, RuntimeError, EOFError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} is no state of a training, or damaged ({reason})") from None


def check_arguments(saved: Mapping[str, Any], given: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with other arguments than a training began with.

    Raises:
        ValueError: it names what differs, and both values.
    """
    names = [*saved, *(name for name in given if name not in saved)]
    changed = [name for name in names if saved.get(name) != given.get(name)]
    if changed:
        shown = "; ".join(
            f"{name}={given.get(name)!r} instead of {saved.get(name)!r}" for name in changed[:5]
        )
        raise ValueError(
            f"{path} is of a training with other arguments: {shown}. Pass those of then, or another --output"
        )


def remove_partial(folder: Path) -> None:
    """Remove what a killed process left half written."""
    for path in (*folder.glob(f".{RESUME}.partial"), *folder.glob(f".{WEIGHTS}.*.partial")):
        with suppress(OSError):
            path.unlink()


def check_folder(folder: Path) -> None:
    """Make the folder of a training, and check that files can be written there.

    Raises:
        ValueError: it cannot be made or written.
    """
    probe = folder / ".writable.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"cannot write into {folder}: {error.strerror or error}") from None
