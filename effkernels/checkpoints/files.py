"""Checkpoint files: read state dicts without running any code in them, write them atomically."""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from effkernels.checkpoints.formats import listed
from effkernels.checkpoints.prefixes import find_network, shared_prefix, without_inserted

logger = logging.getLogger(__name__)

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
SAFETENSORS_SUFFIX = ".safetensors"

RECORD = "effkernels"
"""Where our own record (format, variant, semantics; JSON) is stored: a key of a safetensors file's
metadata, or an attribute of a pickled state dict, which ``load_state_dict`` of any model ignores."""

_PLAIN_WRAPPERS = ("state_dict", "model", "model_state_dict", "net", "module")
_EMA_WRAPPERS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")

# Classes without code that a pickle may contain. Training scripts save their arguments as such (timm does).
_DATA_CLASSES: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [argparse.Namespace]


@dataclass(frozen=True)
class Contents:
    """A state dict without its wrappers, and our record from the file (empty if there is none)."""

    state_dict: dict[str, Tensor]
    record: Mapping[str, Any]


def read_state_dict(path: str | os.PathLike[str], *, use_ema: bool | None = None) -> Contents:
    """Read a checkpoint file.

    Pickles are always read with ``weights_only=True``; in addition to what that allows, they may
    contain ``argparse.Namespace``, which is plain data. Files of torch's zip format and safetensors are
    mapped into memory, not copied.

    Args:
        path: ``.pth``, ``.pt``, ``.bin``, ``.ckpt``, ``.tar`` (torch.save) or ``.safetensors``.
        use_ema: for a training checkpoint that holds trained and averaged weights: True for the averaged
            ones, False for the trained ones.

    Raises:
        ValueError: the file is missing, empty, truncated or corrupt; it holds no state dict, or several;
            or reading the pickle would run code. The message names the file.
        ImportError: safetensors is needed and not installed.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a folder; pass a checkpoint file in it")
    if not path.is_file():
        raise ValueError(f"no such checkpoint file: {path}")
    accepted = (*TORCH_SUFFIXES, SAFETENSORS_SUFFIX)
    if path.suffix not in accepted:
        raise ValueError(
            f"{path}: unknown file name extension {path.suffix!r}; accepted: {', '.join(accepted)}"
        )
    _refuse_stand_ins(path)
    if path.suffix == SAFETENSORS_SUFFIX:
        return _read_safetensors(path, use_ema)
    return unwrap(_read_pickle(path), str(path), use_ema=use_ema)


def unwrap(loaded: object, origin: str, *, use_ema: bool | None = None) -> Contents:
    """Find the state dict in a training script's checkpoint, and the network in the state dict.

    The state dict may be the value of ``state_dict``, ``model``, ``model_state_dict``, ``net`` or
    ``module``, or of ``state_dict_ema``, ``model_ema``, ``ema_state_dict`` or ``ema``. Prefixes of the
    network's keys (``module.``, ``model.``, ``backbone.`` or any other) are removed, and so is what
    wrappers inserted in the middle (``_orig_mod.``). Keys outside of the network are left out with a
    warning that names them.

    Args:
        loaded: a state dict, or dicts around one.
        origin: how errors name the checkpoint.
        use_ema: True for the averaged weights, False for the trained ones; an error if there are none.

    Raises:
        ValueError: there is no state dict; there are trained and averaged weights and ``use_ema`` is
            None; the selected kind is missing; there are several networks.

    Warns:
        UserWarning: some tensors do not belong to the network.
    """
    found, record = loaded, _pickled_record(loaded, origin)
    averaged = False
    for _ in range(3):  # such as {"ema": {"module": ...}}; no known format nests deeper
        if not isinstance(found, Mapping) or not found or _all_tensors(found):
            break
        plain, ema = _wrapped(found, _PLAIN_WRAPPERS), _wrapped(found, _EMA_WRAPPERS)
        chosen = _choose(plain, ema, origin, use_ema)
        if chosen is None:
            break
        averaged = averaged or chosen in ema
        found = found[chosen]
        record = record or _pickled_record(found, origin)
    tensors = _tensors(found, origin)
    names = without_inserted(tensors)
    network = find_network(names, origin, use_ema=None if averaged else use_ema)
    averaged = averaged or (network is not None and network.averaged)
    if use_ema is not None and averaged != use_ema:
        kind = ", ".join(_EMA_WRAPPERS) if use_ema else "weights that are not averaged"
        raise ValueError(f"{origin}: use_ema={use_ema}, but it holds no {kind}")
    prefix = shared_prefix(names) if network is None else network.prefix
    others = set() if network is None else set(network.others)
    if others:
        warnings.warn(
            f"{origin}: the network is the {len(names) - len(others)} entries under {prefix!r}; "
            f"{len(others)} others are left out: {listed(sorted(others))}",
            UserWarning,
            stacklevel=3,
        )
    return Contents(
        {name[len(prefix) :]: tensors[key] for name, key in names.items() if name not in others},
        record,
    )


def _choose(plain: list[str], ema: list[str], origin: str, use_ema: bool | None) -> str | None:
    """The key of the wrapper that holds the wanted state dict; None if there is no wrapper."""
    if plain and ema and use_ema is None:
        raise ValueError(
            f"{origin} holds trained weights ({plain[0]!r}) and averaged ones ({ema[0]!r}): pass "
            f"use_ema=True to take the averaged ones (as timm does), or use_ema=False"
        )
    wanted = ema if ema and (use_ema or not plain) else plain
    if len(wanted) > 1:
        raise ValueError(
            f"{origin} holds {len(wanted)} state dicts ({', '.join(map(repr, wanted))}): pass the "
            f"one you want as weights, such as torch.load(...)[{wanted[0]!r}]"
        )
    return wanted[0] if wanted else None


def _tensors(found: object, origin: str) -> dict[str, Tensor]:
    """The tensors of a state dict, dense and without gradients; ValueError if it is not a state dict."""
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
            f"{origin}: not a state dict, {len(odd)} of {len(found)} entries are not tensors: "
            f"{listed(odd)}"
        )
    tensors = {str(key): _dense(value.detach()) for key, value in found.items()}
    tensors.pop("n_averaged", None)  # a counter of torch.optim.swa_utils.AveragedModel
    return tensors


def _dense(value: Tensor) -> Tensor:
    return value if value.layout == torch.strided else value.to_dense()


def write_state_dict(
    state_dict: Mapping[str, Tensor], path: str | os.PathLike[str], record: Mapping[str, Any]
) -> None:
    """Write a state dict and our record atomically: the file appears complete or not at all.

    Args:
        state_dict: its tensors are moved to the CPU and made contiguous.
        path: ``.pth``, ``.pt``, ``.bin`` or ``.safetensors``; an existing file is replaced.
        record: a mapping of JSON types.

    Raises:
        ValueError: another suffix, or the folder does not exist.
        ImportError: safetensors is needed and not installed.
    """
    path = Path(path)
    accepted = (".pth", ".pt", ".bin", SAFETENSORS_SUFFIX)
    if path.suffix not in accepted:
        raise ValueError(
            f"cannot write a checkpoint to {path}: the name must end in {', '.join(accepted)}"
        )
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: no such folder {path.parent}")
    # clone: torch.save would store the whole storage of a view.
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


def _wrapped(found: Mapping[str, Any], names: tuple[str, ...]) -> list[str]:
    """Those of ``names`` that hold tensors, directly or one level below; if none does, those that exist."""
    inner = {name: found[name] for name in names if isinstance(found.get(name), Mapping)}
    holding = [
        name
        for name, mapping in inner.items()
        for values in [list(mapping.values())]
        if any(isinstance(value, Tensor) for value in values)
        or any(isinstance(v, Tensor) for m in values if isinstance(m, Mapping) for v in m.values())
    ]
    return holding or list(inner)


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
        raise ValueError(f"{origin}: its effkernels metadata is damaged: not a JSON object")
    return record


def _refuse_stand_ins(path: Path) -> None:
    """Refuse the small text files that failed downloads leave instead of a checkpoint, and say what they are."""
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
    # mmap needs torch's zip format; torch before 1.6 wrote a bare pickle stream.
    mapped = zipfile.is_zipfile(path)
    try:
        with torch.serialization.safe_globals(_DATA_CLASSES):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused is None:
            raise ValueError(f"{path} is truncated, corrupt, or not a torch checkpoint") from None
        raise ValueError(
            f"{path} is a pickle that needs {refused[1]}, that is, it would run code while it is read; "
            f"only tensors and plain data are read, and no option changes that. If you trust "
            f"the file, load it with the program that wrote it, save the state dict alone with "
            f"torch.save(model.state_dict(), 'weights.pth'), and pass that"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # unpickling corrupt data may raise anything
        reason = str(error).strip().split("\n")[0][:200] or type(error).__name__
        raise ValueError(
            f"{path} is truncated, corrupt, or not a torch checkpoint ({reason})"
        ) from None


def _read_safetensors(path: Path, use_ema: bool | None) -> Contents:
    _require_safetensors()
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            # safe_open returns an object with keys() that cannot be iterated.
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{path} is truncated, corrupt, or not a safetensors file ({error})"
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
