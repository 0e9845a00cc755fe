"""``effkernels cam``: class activation maps over a picture, of one model or of several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from effkernels.cli.classify import Ranked, load_named, logits_of, rank, stack_for
from effkernels.cli.options import choose_device
from effkernels.cli.output import check_output, console, print_json, printable
from effkernels.models import EfficientNet
from effkernels_cli.options import DEFAULT_MODEL, DEFAULT_WEIGHTS

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_OPACITY = 0.5
_GAP, _CAPTION = 8, 20  # pixels between the pictures and of the line below each
# Blue, cyan, yellow, red: low to high.
_COLOURS = np.array([[0, 0, 160], [0, 200, 255], [255, 230, 0], [200, 0, 0]], float)


@dataclass(frozen=True)
class Shown:
    """What one model sees: its crop as (size, size, 3) uint8, the class, and that class's (h, w) map."""

    model: str
    crop: np.ndarray[Any, np.dtype[np.uint8]]
    ranked: Ranked
    map: Tensor


def cam(
    *,
    image: str,
    output: Path,
    model: Sequence[str] | None,
    weights: Sequence[str] | None,
    wanted: str | None,
    device: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write the picture and print the classes; see ``effkernels cam --help``."""
    names = list(model or [DEFAULT_MODEL])
    files = list(weights or [DEFAULT_WEIGHTS])
    if len(files) not in (1, len(names)):
        raise ValueError(
            f"--weights must be given once, or once for each of {len(names)} models; got {len(files)}"
        )
    check_output(output, _SUFFIXES, force=force)
    where, _ = choose_device(device)
    shown = []
    for name, file in zip(names, files * (len(names) // len(files)), strict=True):
        network, classes = load_named(name, file, None, where)
        picture = network.preprocessing(image)
        shown.append(Shown(name, *_look(network, picture, classes, wanted)))
    _write(shown, output)
    if as_json:
        print_json(
            {
                "picture": image,
                "output": str(output),
                "maps": [
                    {"model": one.model, "class": one.ranked.to_json(), "map": one.map.tolist()}
                    for one in shown
                ],
            }
        )
        return
    for one in shown:
        console().print(printable(_caption(one)), soft_wrap=True)
    console().print(printable(f"written to {output}"), soft_wrap=True)


def _look(
    network: EfficientNet, picture: Tensor, classes: Sequence[str], wanted: str | None
) -> tuple[np.ndarray[Any, np.dtype[np.uint8]], Ranked, Tensor]:
    """The pixels of a prepared picture, (3, H, W), the wanted class, and its map."""
    logits = logits_of(network, [picture])
    if wanted is None:
        ((ranked,),) = rank(logits, 1, classes)
    else:
        index = class_index(wanted, classes)
        ranked = Ranked(index, classes[index], logits.softmax(1)[0, index].item())
    with torch.inference_mode():
        found = network.cam(stack_for(network, [picture]), ranked.index)[0].float().cpu()
    std, mean = (
        torch.tensor(values)[:, None, None]
        for values in (network.preprocessing.std, network.preprocessing.mean)
    )
    pixels = (picture * std + mean).mul(255).round().clamp(0, 255).byte()
    return pixels.permute(1, 2, 0).numpy(), ranked, found


def class_index(wanted: str, classes: Sequence[str]) -> int:
    """The class that is meant by its index or its name.

    Raises:
        ValueError: there is none, or several have names that contain ``wanted``.
    """
    if wanted.isdigit():
        if int(wanted) >= len(classes):
            raise ValueError(f"--class must be at most {len(classes) - 1}, got {wanted}")
        return int(wanted)
    folded = wanted.casefold()
    for matches in (
        [i for i, text in enumerate(classes) if text.casefold() == folded],
        [i for i, text in enumerate(classes) if folded in text.casefold()],
    ):
        if len(matches) == 1:
            return matches[0]
        if matches:
            some = ", ".join(classes[i] for i in matches[:5])
            raise ValueError(f"--class {wanted!r} is in {len(matches)} names of classes: {some}")
    raise ValueError(f"--class {wanted!r}: no class has such a name; pass its index")


def scaled(found: Tensor) -> Tensor:
    """A map as Grad-CAM shows it: ReLU, then scaled to [0, 1]; zeros where nothing speaks for the class."""
    positive = found.relu()
    positive = positive - positive.min()
    highest = positive.max()
    return positive / highest if highest > 0 else positive


def _caption(one: Shown) -> str:
    return f"{one.model}: {one.ranked.label} {100 * one.ranked.probability:.1f} %"


def _write(shown: Sequence[Shown], output: Path) -> None:
    """The crop of the first model, then the overlays of all, each with a line below."""
    from PIL import Image, ImageDraw

    side = max(len(one.crop) for one in shown)
    panels = [(Image.fromarray(shown[0].crop).resize((side, side)), "picture")]
    panels += [(_overlay(one).resize((side, side)), _caption(one)) for one in shown]
    width = len(panels) * (side + _GAP) - _GAP
    sheet = Image.new("RGB", (width, side + _CAPTION), "white")
    draw = ImageDraw.Draw(sheet)
    for position, (panel, text) in enumerate(panels):
        left = position * (side + _GAP)
        sheet.paste(panel, (left, 0))
        while draw.textlength(text) > side and len(text) > 4:
            text = f"{text[:-4]}..."
        draw.text((left, side + 4), text, fill="black")
    sheet.save(output)


def _overlay(one: Shown) -> Any:
    """The crop under its map, which is resized bicubically and coloured."""
    from PIL import Image

    size = (one.crop.shape[1], one.crop.shape[0])
    low = Image.fromarray(scaled(one.map).numpy().astype(np.float32))
    heat = np.asarray(low.resize(size, Image.Resampling.BICUBIC)).clip(0.0, 1.0)
    stops = np.linspace(0.0, 1.0, len(_COLOURS))
    colours = np.stack([np.interp(heat, stops, channel) for channel in _COLOURS.T], axis=-1)
    mixed = (1 - _OPACITY) * one.crop + _OPACITY * colours
    return Image.fromarray(mixed.round().astype(np.uint8))
