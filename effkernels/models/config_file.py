"""Configurations as JSON files: written whole, and read strictly."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from effkernels.models.config import EfficientNetConfig, StageConfig
from effkernels.models.scaling import Coefficients

_Row = TypeVar("_Row", Coefficients, StageConfig, EfficientNetConfig)
_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "BlockType": (str,),
    "Coefficients": (dict,),
    "tuple[StageConfig, ...]": (list,),
}


def config_to_json(config: EfficientNetConfig) -> dict[str, Any]:
    """A configuration as plain JSON types; :func:`config_from_json` reads it."""
    record = asdict(config)
    record["stages"] = list(record["stages"])
    return record


def config_from_json(record: Any) -> EfficientNetConfig:
    """The inverse of :func:`config_to_json`. What has a default may be left out.

    Raises:
        ValueError: an entry is missing, unknown, of another type or out of range; the message names it.
    """
    own = _checked(record, EfficientNetConfig, "the configuration")
    own["coefficients"] = _made(own["coefficients"], Coefficients, "coefficients")
    if "stages" in own:
        stages = enumerate(own["stages"])
        own["stages"] = tuple(_made(stage, StageConfig, f"stages[{i}]") for i, stage in stages)
    return _build(own, EfficientNetConfig, "the configuration")


def write_config(config: EfficientNetConfig, path: str | os.PathLike[str]) -> None:
    """Write a configuration as a JSON file."""
    Path(path).write_text(json.dumps(config_to_json(config), indent=2) + "\n", encoding="utf-8")


def read_config(path: str | os.PathLike[str]) -> EfficientNetConfig:
    """Read a configuration that :func:`write_config` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no configuration; the message names the file and what is wrong.
    """
    try:
        return config_from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except ValueError as error:  # json's and unicode's errors are ValueErrors
        raise ValueError(f"{path} holds no configuration: {error}") from None


def _made(record: Any, kind: type[_Row], where: str) -> _Row:
    return _build(_checked(record, kind, where), kind, where)


def _build(checked: Mapping[str, Any], kind: type[_Row], where: str) -> _Row:
    try:
        return kind(**checked)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None


def _checked(record: Any, kind: type[_Row], where: str) -> dict[str, Any]:
    """The entries of a record, each known, of its type, and none missing."""
    if not isinstance(record, dict):
        raise ValueError(f"{where} must be an object, got {type(record).__name__}")
    known = {field.name: field for field in fields(kind)}
    for name, value in record.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise ValueError(f"{where} has an unknown entry {name!r}: {hint}")
        wanted = str(known[name].type)
        bad = isinstance(value, bool) and wanted != "bool"
        if bad or not isinstance(value, _KINDS[wanted]):
            raise ValueError(f"{where}: {name} must be of type {wanted}, got {value!r}")
    for name, field in known.items():
        if name not in record and field.default is MISSING:
            raise ValueError(f"{where} lacks {name}")
    return dict(record)
