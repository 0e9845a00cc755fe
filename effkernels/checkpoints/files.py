"""Checkpoint files: read state dicts without running any code in them, write them atomically."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effkernels.checkpoints.formats import listed

logger = logging.getLogger(__name__)

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
SAFETENSORS_SUFFIX = ".safetensors"

RECORD = "effkernels"
"""Where our own record (format, variant, semantics; JSON) stands: a key of a safetensors file's
metadata, or an attribute of a pickled state dict, which ``load_state_dict`` of any model
ignores."""

_PLAIN_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "module")
_EMA_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel and DDP, torch.compile, Lightning


@dataclass(frozen=True)
class Contents:
    """A state dict as it was found, without wrappers, and our record beside it (empty if none)."""

    state_dict: dict[str, Tensor]
    record: Mapping[str, Any]


def read_state_dict(path: str | os.PathLike[str], *, use_ema: bool = False) -> Contents:
    """Read a checkpoint file.

    Pickles are read with ``weights_only=True`` and never otherwise. Files of torch's zip format and
    safetensors are mapped into memory, not copied.

    Args:
        path: ``.pth``, ``.pt``, ``.bin``, ``.ckpt``, ``.tar`` (torch.save) or ``.safetensors``.
        use_ema: take the averaged weights of a training checkpoint that holds both.

    Raises:
        ValueError: missing, empty, truncated or corrupt file, one that holds no state dict, or a
            pickle that would have to run code. The message names the file.
        ImportError: a safetensors file, and safetensors is not installed.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; pass a checkpoint file in it")
    if not path.is_file():
        raise ValueError(f"no such checkpoint file: {path}")
    accepted = (*TORCH_SUFFIXES, SAFETENSORS_SUFFIX)
    if path.suffix not in accepted:
        raise ValueError(
            f"{path}: unknown kind of checkpoint file {path.suffix!r}; accepted: "
            f"{', '.join(accepted)}"
        )
    _refuse_stand_ins(path)
    if path.suffix == SAFETENSORS_SUFFIX:
        return _read_safetensors(path, use_ema)
    return unwrap(_read_pickle(path), str(path), use_ema=use_ema)


def unwrap(loaded: object, origin: str, *, use_ema: bool = False) -> Contents:
    """Find the state dict in what a training script saved.

    Looks into ``state_dict``, ``model``, ``model_state_dict``, ``net`` and ``module``, and into
    ``state_dict_ema``, ``model_ema``, ``ema_state_dict`` and ``ema``, whichever is there: the plain
    weights where there are both, unless ``use_ema``. Prefixes that all keys share (``module.`` of
    DataParallel, ``_orig_mod.`` of torch.compile, ``model.``) are cut off.

    Args:
        loaded: a state dict, or dicts around one.
        origin: named in errors.
        use_ema: take the averaged weights; an error where there are none.

    Raises:
        ValueError: there is no state dict, or no EMA where it was asked for.
    """
    found, record = loaded, _pickled_record(loaded, origin)
    found_ema = False
    for _ in range(3):  # {"ema": {"module": ...}} and the like; nothing nests deeper
        if not isinstance(found, Mapping) or not found or _all_tensors(found):
            break
        plain = [name for name in _PLAIN_WRAPPERS if isinstance(found.get(name), Mapping)]
        ema = [name for name in _EMA_WRAPPERS if isinstance(found.get(name), Mapping)]
        if ema and (use_ema or not plain):
            logger.info("%s: using the averaged (EMA) weights under %r", origin, ema[0])
            found, found_ema = found[ema[0]], True
        elif plain:
            if ema:
                logger.info("%s: %r is there too (use_ema=True takes it)", origin, ema[0])
            found = found[plain[0]]
        else:
            break
        record = record or _pickled_record(found, origin)
    if use_ema and not found_ema:
        raise ValueError(f"{origin}: use_ema=True, but it holds no {', '.join(_EMA_WRAPPERS)}")
    if not isinstance(found, Mapping):
        raise ValueError(
            f"{origin} holds a {type(found).__name__}, not a state dict (a mapping of names to "
            f"tensors): save model.state_dict()"
        )
    if not found:
        raise ValueError(f"{origin}: the state dict is empty")
    if not _all_tensors(found):
        odd = [str(key) for key, value in found.items() if not isinstance(value, Tensor)]
        raise ValueError(
            f"{origin}: not a state dict, {len(odd)} of {len(found)} entries are no tensors: "
            f"{listed(odd)}"
        )
    tensors = {key: value.detach() for key, value in found.items()}
    tensors.pop("n_averaged", None)  # of torch.optim.swa_utils.AveragedModel
    prefix = shared_prefix(tensors)
    return Contents({key[len(prefix) :]: value for key, value in tensors.items()}, record)


def shared_prefix(keys: Mapping[str, Any]) -> str:
    """The wrappers' prefix that all keys share, such as ``module._orig_mod.``; empty if none."""
    prefix = ""
    while keys:
        longer = [prefix + p for p in _PREFIXES if all(k.startswith(prefix + p) for k in keys)]
        if not longer:
            break
        prefix = longer[0]
    return prefix


def write_state_dict(
    state_dict: Mapping[str, Tensor], path: str | os.PathLike[str], record: Mapping[str, Any]
) -> None:
    """Write a state dict and our record; the file appears whole or not at all.

    Args:
        state_dict: moved to the CPU and made contiguous on the way.
        path: ``.pth``, ``.pt``, ``.bin`` or ``.safetensors``; an existing file is replaced.
        record: JSON types.

    Raises:
        ValueError: another suffix, or a folder that is not there.
        ImportError: a safetensors file, and safetensors is not installed.
    """
    path = Path(path)
    accepted = (".pth", ".pt", ".bin", SAFETENSORS_SUFFIX)
    if path.suffix not in accepted:
        raise ValueError(
            f"cannot write a checkpoint to {path}: the name must end in {', '.join(accepted)}"
        )
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: no such folder {path.parent}")
    # clone: a view of a larger storage would be saved with all of it.
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state_dict.items()}
    text = json.dumps(dict(record), sort_keys=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        if path.suffix == SAFETENSORS_SUFFIX:
            _require_safetensors()
            from safetensors.torch import save_file

            save_file(tensors, partial, metadata={"format": "pt", RECORD: text})
        else:
            annotated = OrderedDict(tensors)
            setattr(annotated, RECORD, text)
            torch.save(annotated, partial)
        os.replace(partial, path)
    finally:
        with suppress(FileNotFoundError):
            partial.unlink()


def _all_tensors(mapping: Mapping[str, Any]) -> bool:
    return all(isinstance(value, Tensor) for value in mapping.values())


def _pickled_record(found: object, origin: str) -> Mapping[str, Any]:
    return _parse_record(getattr(found, RECORD, None), origin)


def _parse_record(text: object, origin: str) -> Mapping[str, Any]:
    if text is None:
        return {}
    try:
        record = json.loads(text) if isinstance(text, str) else None
    except ValueError:
        record = None
    if not isinstance(record, dict):
        raise ValueError(f"{origin}: its effkernels metadata is damaged")
    return record


def _refuse_stand_ins(path: Path) -> None:
    """Name the small text files that downloads leave in place of a checkpoint."""
    with path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if not start:
        raise ValueError(f"{path} is empty")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{path} is a Git LFS pointer, not the weights: fetch it with 'git lfs pull'"
        )
    if start.startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is a web page, not a checkpoint: download the file itself")


def _read_pickle(path: Path) -> object:
    # mmap needs torch's zip format; files from before torch 1.6 are a bare pickle stream.
    mapped = zipfile.is_zipfile(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise ValueError(f"{path} is truncated, corrupt, or no torch checkpoint") from None
        raise ValueError(
            f"{path} is a pickle that needs {refused[1]}, that is, code to run while it is read; "
            f"only plain tensors are read, and there is no switch for it. Where you trust the "
            f"file, load it with the program that wrote it and save its model.state_dict() alone"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # corrupt pickles raise nearly anything
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ValueError(
            f"{path} is truncated, corrupt, or no torch checkpoint ({reason})"
        ) from None


def _read_safetensors(path: Path, use_ema: bool) -> Contents:
    _require_safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            # The file is no mapping: it has keys() and cannot be iterated.
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is truncated, corrupt, or no safetensors file ({error})"
        ) from None
    found = unwrap(tensors, str(path), use_ema=use_ema)
    return Contents(found.state_dict, _parse_record(metadata.get(RECORD), str(path)))


def _require_safetensors() -> None:
    try:
        import safetensors  # noqa: F401
    except ImportError:
        raise ImportError(
            "reading and writing .safetensors needs safetensors, which is not installed: "
            'pip install "effkernels[hub]"'
        ) from None
