"""From a reference to a checkpoint (path, name, hub, state dict) to its tensors and semantics."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from effkernels.checkpoints.files import Contents, read_state_dict, unwrap
from effkernels.checkpoints.formats import detect_format
from effkernels.checkpoints.hub import HubModel, fetch_folder, fetch_model, is_hub_reference
from effkernels.checkpoints.loading import Checkpoint
from effkernels.checkpoints.pretrained import locate, pretrained_row
from effkernels.checkpoints.published import is_named
from effkernels.checkpoints.semantics import (
    Semantics,
    Source,
    config_semantics,
    format_semantics,
    parse_source,
    semantics_from_json,
    source_semantics,
)

logger = logging.getLogger(__name__)


def resolve(
    weights: str | os.PathLike[str] | Mapping[str, Tensor],
    *,
    variant: str,
    source: str | None = None,
    use_ema: bool | None = None,
) -> Checkpoint:
    """Find a checkpoint, read it, recognise its format and determine its semantics.

    The semantics come from the first of these that exists: ``source``; the record that
    :func:`save_checkpoint` wrote into the file; the hub repository's ``config.json``; the format,
    if its keys allow only one reading. It is an error if ``source`` contradicts the record or the
    configuration; if it contradicts the format, a warning is logged. An effkernels state dict
    without a record is taken to use the package's defaults (eps 1e-3, symmetric padding).

    Args:
        weights: a file (:func:`read_state_dict`), a folder that is a copy of a hub repository, a
            state dict, ``"hf-hub:owner/name"`` or ``"hf-hub:owner/name@revision"``, or
            ``"imagenet"``.
        variant: our name of the model that is to be built, such as ``"efficientnet_b0"``.
        source: who trained the weights, such as ``"timm/tf_efficientnet_b0"`` or
            ``"timm/efficientnet_b0.ra_in1k"``; see :func:`parse_source`.
        use_ema: for a training checkpoint that holds trained and averaged weights: True for the
            averaged ones, False for the trained ones; None makes such a checkpoint an error.

    Raises:
        ValueError: the checkpoint does not exist, cannot be read, is of no known format, states
            that it is of another model, or has ambiguous or contradictory semantics. The message
            says what to pass.
        ImportError: a required package is not installed. The message names it.
        TypeError: ``weights`` is of none of the kinds above.
    """
    if isinstance(weights, Mapping):
        return _checkpoint(
            unwrap(weights, "the state dict", use_ema=use_ema), "the state dict", variant, source
        )
    if not isinstance(weights, (str, os.PathLike)):
        raise TypeError(
            f"weights must be a path, a state dict, 'hf-hub:owner/name' or 'imagenet', got "
            f"{type(weights).__name__}"
        )
    if weights == "imagenet":
        return _imagenet(variant, source, use_ema)
    text = os.fspath(weights)
    if is_hub_reference(text):
        return _from_hub(fetch_model(text), text, variant, source, use_ema)
    if Path(text).is_dir():
        return _from_hub(fetch_folder(Path(text)), text, variant, source, use_ema)
    if isinstance(weights, str) and not Path(text).suffix and not Path(text).exists():
        raise ValueError(
            f"weights={text!r} is neither a file nor a known name; accepted: a checkpoint file, a state "
            f"dict, 'hf-hub:owner/name', 'imagenet'"
        )
    return _checkpoint(read_state_dict(text, use_ema=use_ema), text, variant, source)


def _imagenet(variant: str, source: str | None, use_ema: bool | None) -> Checkpoint:
    row = pretrained_row(variant)
    if source is not None and parse_source(source) != parse_source(row.source):
        raise ValueError(
            f"weights='imagenet' of {variant} are {row.source}, and source={source!r} says "
            f"otherwise: drop source, or name the weights as a file or 'hf-hub:owner/name'"
        )
    path = locate(row)
    return _checkpoint(read_state_dict(path, use_ema=use_ema), str(path), variant, row.source)


def _from_hub(
    model: HubModel, origin: str, variant: str, source: str | None, use_ema: bool | None
) -> Checkpoint:
    contents = read_state_dict(model.weights, use_ema=use_ema)
    return _checkpoint(contents, origin, variant, source, model.config)


def _checkpoint(
    contents: Contents,
    origin: str,
    variant: str,
    source: str | None,
    config: Mapping[str, Any] | None = None,
) -> Checkpoint:
    try:
        fmt = detect_format(contents.state_dict)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
    parsed = None if source is None else parse_source(source)
    if parsed is not None:
        _check_variant(f"source {parsed.name!r}", parsed.variant, variant)
    stated = _stated(contents.record, config or {}, origin, variant)
    semantics = _settle(parsed, stated, fmt, origin, variant)
    return Checkpoint(contents.state_dict, fmt, semantics, origin, contents.record)


def _stated(
    record: Mapping[str, Any], config: Mapping[str, Any], origin: str, variant: str
) -> Semantics | None:
    """What the file, or else the hub's configuration, states about itself."""
    stated = None
    if record:
        _check_variant(origin, str(record.get("variant")), variant)
        stated = semantics_from_json(record.get("semantics", {}))
    configured = config_semantics(config, origin)
    if configured is None:
        return stated
    source, semantics = configured
    _check_variant(f"{origin} (by its configuration)", source.variant, variant)
    if stated is not None and not stated.same_outputs(semantics):
        raise ValueError(
            f"{origin}: its metadata ({stated.describe()}) and its configuration ({source.name}: "
            f"{semantics.describe()}) contradict each other; pass the weights file alone"
        )
    return stated or semantics


def _settle(
    source: Source | None, stated: Semantics | None, fmt: str, origin: str, variant: str
) -> Semantics:
    """Choose between ``source`` and what the file states; contradictions are errors."""
    if source is None:
        if stated is not None:
            return stated
        try:
            return format_semantics(fmt, variant)
        except ValueError as error:
            raise ValueError(f"{origin}: {error}") from None
    said = source_semantics(source)
    if stated is not None and not stated.same_outputs(said):
        raise ValueError(
            f"{origin} states {stated.describe()}, but source={source.name!r} means "
            f"{said.describe()}: drop source to use what the file states, or pass its state dict to follow "
            f"source"
        )
    if stated is not None and stated.preprocessing not in (None, said.preprocessing):
        logger.warning(
            "%s: source %s has other preprocessing than the file states; that of the source is used",
            origin,
            source.name,
        )
    if stated is None and fmt not in ("timm", "effkernels"):
        _warn_of_format(source, said, fmt, origin, variant)
    return said


def _warn_of_format(source: Source, said: Semantics, fmt: str, origin: str, variant: str) -> None:
    try:
        usual = format_semantics(fmt, variant)
    except ValueError:  # the publisher has no such model, so nothing is contradicted
        return
    if not usual.same_outputs(said):
        logger.warning(
            "%s has the keys of %s (%s); source %s (%s) is used",
            origin,
            fmt,
            usual.describe(),
            source.name,
            said.describe(),
        )


def _check_variant(what: str, found: str, wanted: str) -> None:
    # Custom models (any phi) have their own names, which cannot be compared.
    if found != wanted and is_named(found) and is_named(wanted):
        raise ValueError(f"{what} is {found}, but the model to build is {wanted}")
