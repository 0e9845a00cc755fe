"""Key maps compared with the state dicts of other code bases."""

from __future__ import annotations

import functools

import pytest
import torch

import effkernels
from archetypes import BOTTLENECK
from effkernels.checkpoints import (
    FORMATS,
    Checkpoint,
    Semantics,
    detect_format,
    export_state,
    load_into,
    source_semantics,
)
from effkernels.checkpoints.formats import get_format, structure_of
from effkernels.checkpoints.loading import looks_like
from model_names import LITE, TO_B7
from oracles import oracle
from tiers import slow_unless

ENTRIES = {
    "efficientnet_b0": 360,
    "efficientnet_b1": 508,
    "efficientnet_b2": 508,
    "efficientnet_b3": 574,
    "efficientnet_b4": 706,
    "efficientnet_b5": 854,
    "efficientnet_b6": 986,
    "efficientnet_b7": 1200,
    "efficientnet_b8": 1332,
    "efficientnet_l2": 1914,
    # For Lite as above, with fewer blocks, and without the four squeeze-excitation tensors of each
    # block.
    "efficientnet_lite0": 296,
    "efficientnet_lite1": 386,
    "efficientnet_lite2": 386,
    "efficientnet_lite3": 440,
    "efficientnet_lite4": 548,
}

# The other variants differ in the numbers of blocks and channels alone.
FAST = ("efficientnet_b0", "efficientnet_b1", "efficientnet_lite0", "efficientnet_lite1")


@functools.cache
def ours(name: str, **options) -> dict[str, torch.Tensor]:
    return effkernels.create_model(name, device="meta", **options).state_dict()


def shapes(state_dict) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state_dict.items()}


def assert_known(theirs: torch.nn.Module, name: str, fmt: str, source: str, padding: str) -> None:
    """The exported keys and shapes are exactly those of the other code base's model, and BatchNorm is its own."""
    state = theirs.state_dict()
    assert shapes(export_state(ours(name), fmt)) == shapes(state)
    assert detect_format(state) == fmt
    found = {(m.eps, m.momentum) for m in theirs.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert len(found) == 1
    semantics = source_semantics(f"{fmt}/{source}")
    assert (semantics.bn_eps, semantics.bn_momentum) == pytest.approx(found.pop(), rel=1e-12)
    assert semantics.padding == padding


class TestAgainstTheirModels:
    # Without "tf_" the shapes are the same, and so are BatchNorm and padding of all of them.
    @pytest.mark.parametrize(
        ("name", "prefix"),
        slow_unless(
            FAST,
            [
                *((name, "tf_") for name in ENTRIES),
                ("efficientnet_b0", ""),
                ("efficientnet_lite0", ""),
            ],
        ),
    )
    def test_timm(self, name, prefix):
        timm = oracle("timm")
        with torch.device("meta"):
            theirs = timm.create_model(prefix + name)
        dynamic_same = type(theirs.conv_stem).__name__ == "Conv2dSame"
        padding = "same" if dynamic_same else "symmetric"
        assert_known(theirs, name, "timm", prefix + name, padding)

    @pytest.mark.parametrize("name", slow_unless(FAST, TO_B7))
    def test_torchvision(self, name):
        models = oracle("torchvision.models")
        with torch.device("meta"):
            theirs = getattr(models, name)()
        assert_known(theirs, name, "torchvision", name, "symmetric")

    @pytest.mark.parametrize(
        "name", slow_unless(FAST, [*TO_B7, "efficientnet_b8", "efficientnet_l2"])
    )
    def test_lukemelas(self, name):
        lukemelas = oracle("efficientnet_pytorch")
        with torch.device("meta"):
            theirs = lukemelas.EfficientNet.from_name(name.replace("_", "-"))
        assert_known(theirs, name, "lukemelas", name, "same")

    @pytest.mark.parametrize(
        ("name", "fmt", "make"),
        [
            ("resnet50", "torchvision_resnet", "torchvision.models.resnet50"),
            ("mobilenet_v1", "timm", "timm.models.mobilenetv1_100"),
        ],
    )
    def test_baselines(self, name, fmt, make):
        module, _, function = make.rpartition(".")
        with torch.device("meta"):
            theirs = getattr(oracle(module), function)().state_dict()
        state = ours(name)
        exported = export_state(state, fmt)
        assert shapes(exported) == shapes(theirs)
        assert detect_format(theirs) == fmt
        for other in sorted({"torchvision_mobilenet", "torchvision_resnet", "lukemelas"} - {fmt}):
            with pytest.raises(ValueError, match=r"no name for stages\.0\.0\.\w+\.conv"):
                export_state(state, other)


# Copied from the module names in RangiLyu/EfficientNet-Lite, for which there is no package.
RANGILYU_LITE0_LAYERS = {
    "stem.0": "stem.conv",
    "stem.1": "stem.bn",
    "blocks.0.0._depthwise_conv": "stages.0.0.depthwise.conv",
    "blocks.0.0._bn1": "stages.0.0.depthwise.bn",
    "blocks.0.0._project_conv": "stages.0.0.project.conv",
    "blocks.0.0._bn2": "stages.0.0.project.bn",
    "blocks.5.3._expand_conv": "stages.5.3.expand.conv",
    "blocks.5.3._bn0": "stages.5.3.expand.bn",
    "blocks.5.3._depthwise_conv": "stages.5.3.depthwise.conv",
    "blocks.5.3._bn1": "stages.5.3.depthwise.bn",
    "blocks.5.3._project_conv": "stages.5.3.project.conv",
    "blocks.5.3._bn2": "stages.5.3.project.bn",
    "head.0": "head.conv",
    "head.1": "head.bn",
    "fc": "classifier",
}


@pytest.mark.parametrize(("theirs", "mine"), RANGILYU_LITE0_LAYERS.items())
def test_rangilyu(theirs, mine):
    state = ours("efficientnet_lite0")
    exported = export_state(state, "rangilyu")
    assert exported[f"{theirs}.weight"] is state[f"{mine}.weight"]
    assert len(exported) == len(state)
    assert detect_format(exported) == "rangilyu"


def test_conv_pw_of_timm_has_two_meanings():
    state = ours("efficientnet_b1")  # its stage 0 has two blocks without expansion
    exported = export_state(state, "timm")
    for block in (0, 1):
        projection = exported[f"blocks.0.{block}.conv_pw.weight"]
        assert projection is state[f"stages.0.{block}.project.conv.weight"]
    expansion = exported["blocks.1.0.conv_pw.weight"]
    assert expansion is state["stages.1.0.expand.conv.weight"]


PAIRS = [
    (name, fmt)
    for name in ENTRIES
    for fmt in FORMATS
    if fmt != "torchvision_resnet"
    and not (fmt in ("rangilyu", "torchvision_mobilenet") and name not in LITE)
    and not (fmt == "torchvision" and name in LITE)
]


@pytest.mark.parametrize(("name", "fmt"), PAIRS)
def test_an_export_is_complete_and_its_format_is_detected(name, fmt):
    exported = export_state(ours(name), fmt)
    assert len(exported) == ENTRIES[name]
    assert detect_format(exported) == fmt
    assert all(get_format(fmt).locate(key) is not None for key in exported)
    assert looks_like(exported, get_format(fmt)) == name


class TestDetection:
    def test_survives_missing_and_foreign_keys(self, b0_state):
        keys = [*list(export_state(b0_state, "lukemelas"))[50:], "ema.decay", "step"]
        assert detect_format(keys) == "lukemelas"

    def test_works_on_features_only_keys(self):
        state = ours("efficientnet_b0", features_only=True)
        assert detect_format(state) == "effkernels"

    def test_empty(self):
        with pytest.raises(ValueError, match="empty"):
            detect_format([])

    def test_unknown_lists_the_first_keys_and_the_formats(self):
        keys = [f"layer{i}.conv.weight" for i in range(20)]
        with pytest.raises(ValueError, match="0 of 20 keys belong") as caught:
            detect_format(keys)
        message = str(caught.value)
        assert "layer0.conv.weight, layer1.conv.weight" in message
        assert "and 16 more" in message
        assert all(name in message for name in FORMATS)

    @pytest.mark.parametrize(
        ("key", "owner"),
        [
            ("efficientnet.embeddings.convolution.weight", "Hugging Face transformers"),
            ("layers.0.block0.depsep.conv.weight", "NVIDIA"),
        ],
    )
    def test_known_but_unsupported_formats_are_named(self, key, owner):
        with pytest.raises(ValueError, match=f"looks like {owner}"):
            detect_format([key, "something.else"])

    def test_timms_v2_is_not_mistaken_for_v1(self):
        timm = oracle("timm")
        with torch.device("meta"):
            theirs = timm.create_model("tf_efficientnetv2_s")
        given = Checkpoint(theirs.state_dict(), "timm", Semantics(1e-3, 0.1, "same"), "v2")
        with pytest.raises(ValueError, match="unexpected"):
            load_into(effkernels.create_model("efficientnet_b0"), given)


class TestExportErrors:
    def test_unknown_format(self, b0_state):
        with pytest.raises(ValueError, match="unknown checkpoint format 'keras'; known: effk"):
            export_state(b0_state, "keras")

    def test_lite_cannot_be_written_for_torchvision(self):
        with pytest.raises(ValueError, match="torchvision has no EfficientNet without squeeze"):
            export_state(ours("efficientnet_lite0"), "torchvision")

    def test_rangilyu_is_lite_only(self, b0_state):
        with pytest.raises(ValueError, match="Lite models only"):
            export_state(b0_state, "rangilyu")

    def test_a_head_that_a_format_has_not_is_named(self):
        state = effkernels.models.build(BOTTLENECK, device="meta").state_dict()
        with pytest.raises(ValueError, match=r"no name for head\.conv"):
            export_state(
                {k: v for k, v in state.items() if "squeeze" not in k}, "torchvision_resnet"
            )

    def test_foreign_state_dict(self, b0_state):
        with pytest.raises(ValueError, match="is not a key of the effkernels"):
            export_state(export_state(b0_state, "timm"), "timm")

    def test_fused_model(self, b0):
        with pytest.raises(ValueError, match="a fused model has no timm form"):
            export_state(b0.eval().fuse().state_dict(), "timm")

    def test_wrapper_prefixes_are_cut_off(self, b0_state):
        wrapped = {f"module._orig_mod.{key}": value for key, value in b0_state.items()}
        assert list(export_state(wrapped, "timm")) == list(export_state(b0_state, "timm"))


def test_structure_is_read_from_keys():
    structure = structure_of(ours("efficientnet_lite1"))
    assert [block.kind for block in structure.blocks[:2]] == ["plain", "expanding"]
    assert not any(block.gated for block in structure.blocks)
    assert len(structure.blocks) == 21
    assert (structure.head, structure.classifier) == (True, True)
    headless = structure_of(ours("efficientnet_b0", features_only=True, out_indices=(0, 1)))
    assert (headless.head, headless.classifier, headless.stages) == (False, False, 2)
