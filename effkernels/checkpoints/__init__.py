"""Checkpoints of the published EfficientNet formats: find, read, recognise, load, write."""

from __future__ import annotations

from effkernels.checkpoints.exporting import export_state, save_checkpoint, semantics_of
from effkernels.checkpoints.files import read_state_dict
from effkernels.checkpoints.formats import FORMATS, detect_format
from effkernels.checkpoints.loading import Checkpoint, load_into
from effkernels.checkpoints.pretrained import IMAGENET_CLASSES, PRETRAINED
from effkernels.checkpoints.resolving import resolve
from effkernels.checkpoints.semantics import Semantics, parse_source, source_semantics

__all__ = [
    "FORMATS",
    "IMAGENET_CLASSES",
    "PRETRAINED",
    "Checkpoint",
    "Semantics",
    "detect_format",
    "export_state",
    "load_into",
    "parse_source",
    "read_state_dict",
    "resolve",
    "save_checkpoint",
    "semantics_of",
    "source_semantics",
]
