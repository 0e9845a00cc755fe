"""Networks of fused MBConv, bottleneck and other blocks, in all that a model can be put through."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import effkernels
from archetypes import ARCHETYPES, BOTTLENECK, FUSED, HEADLESS
from effkernels.checkpoints import export_state, save_checkpoint
from effkernels.models import EfficientNet, EfficientNetFeatures, StageConfig, build
from effkernels.models.scaling import compound_scale
from effkernels.nn import Bottleneck, ConvBnAct, FusedMBConv, MBConv
from effkernels.nn.conv_bn_act import WIDE_CHANNELS
from effkernels.scaling import Coefficients, model_cost, scaled_config
from fallbacks import fallbacks
from networks import unfused
from oracles import oracle
from randomise import randomise
from specs.oracle_convolutions import OracleConvolutions
from specs.tolerance import assert_within_eager


@pytest.fixture(params=ARCHETYPES)
def config(request: pytest.FixtureRequest) -> effkernels.EfficientNetConfig:
    return ARCHETYPES[request.param]


@pytest.fixture
def model(config: effkernels.EfficientNetConfig) -> EfficientNet:
    return randomise(build(config, num_classes=7)).eval()


# The logits of one image have their errors from one cause, so several images.
X = torch.randn(8, 3, 37, 50)


class TestInference:
    @torch.no_grad()
    def test_all_routes_agree(self, model: EfficientNet, backend: str) -> None:
        with OracleConvolutions():
            exact = copy.deepcopy(model).double()(X.double())
        eager = unfused(model, X.to(memory_format=torch.channels_last))
        assert_within_eager(model(X), eager, exact)
        torch.testing.assert_close(model.fuse()(X), eager, rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    def test_in_sixteen_bits(self, config: effkernels.EfficientNetConfig, backend: str) -> None:
        model = randomise(build(config, num_classes=7)).eval().bfloat16()
        x = X.bfloat16()
        with OracleConvolutions():
            exact = copy.deepcopy(model).double()(x.double())
        assert_within_eager(model(x), unfused(model, x), exact)

    @torch.no_grad()
    def test_bytes_are_images(self, model: EfficientNet, backend: str) -> None:
        x = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
        torch.testing.assert_close(model(x), unfused(model, x), rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    def test_features_and_pooled(self, config: effkernels.EfficientNetConfig) -> None:
        backbone = EfficientNetFeatures(config).eval()
        x = torch.randn(1, 3, 32, 32)
        for y, channels, stride in zip(
            backbone(x), backbone.channels, backbone.reductions, strict=True
        ):
            assert y.shape == (1, channels, 32 // stride, 32 // stride)
        pooled = build(config, num_classes=0).eval()(x)
        assert pooled.shape == (1, config.scaled_head_channels)

    @pytest.mark.filterwarnings("error")
    def test_nothing_warns(self, model: EfficientNet) -> None:
        """A wide dense convolution in plain PyTorch is nothing that is wrong."""
        with torch.no_grad(), warnings.catch_warnings():
            model(X)
        wide = [m for m in model.modules() if isinstance(m, ConvBnAct) and m.wide]
        assert wide

    @torch.no_grad()
    def test_a_backend_of_stems_alone_is_not_asked(
        self, model: EfficientNet, recwarn: pytest.WarningsRecorder
    ) -> None:
        """Triton's interpreter and GPUs refuse dense convolutions of many terms: none come to them."""
        for layer in model.modules():
            if isinstance(layer, ConvBnAct) and not layer.wide and layer.conv.groups == 1:
                assert layer.pointwise or layer.conv.weight[0].numel() <= 256
        model(X)
        assert fallbacks(recwarn) == []

    def test_why_is_explained(self, model: EfficientNet) -> None:
        found = effkernels.explain(model, X)
        first = type(model.stages[0][0]).__name__
        pools = model.stem_pool is not None
        why = "a max-pool follows the stem" if pools else f"stages.0.0 is a {first}"
        assert why in "".join(found.notes)
        rows = {row.name: row for row in found.rows}
        wide = "stages.1.0.expand" if first == "FusedMBConv" else "stages.1.0.conv"
        assert f"{WIDE_CHANNELS} or more channels" in rows[wide].why
        assert rows[wide].backend == "torch"
        assert (
            found.flops
            == model_cost(model.config, X.shape[2:], batch_size=len(X), num_classes=7).flops
        )

    @torch.no_grad()
    def test_a_residual_is_added_in_the_same_pass(self, model: EfficientNet) -> None:
        with effkernels.use_backend("torch"):
            rows = effkernels.explain(model, X).rows
        added = sum(row.op.split(" + ").count("add") for row in rows)
        squeezed = sum(
            isinstance(m, Bottleneck) and m.squeeze_excite is not None for m in model.modules()
        )
        dense = sum(  # the k x k convolution of blocks that do not expand
            isinstance(m, FusedMBConv) and m.expand is None and m.residual for m in model.modules()
        )
        assert added == squeezed + dense

    @pytest.mark.parametrize("hooked", ["drop_path", "project", "restore", "shortcut", "act"])
    @torch.no_grad()
    def test_hooks_on_parts_run(self, model: EfficientNet, hooked: str) -> None:
        called = []
        for block in (b for stage in model.stages for b in stage):
            part = getattr(block, hooked, None)
            if part is not None and not isinstance(block, MBConv):
                part.register_forward_hook(lambda *_: called.append(1))
        before = build(model.config, num_classes=7).eval()
        before.load_state_dict(model.state_dict())
        torch.testing.assert_close(model(X), before(X), rtol=1e-4, atol=1e-4)
        blocks = [b for stage in model.stages for b in stage if hasattr(b, hooked)]
        assert bool(called) == any(not isinstance(b, MBConv) for b in blocks)


class TestTracing:
    @pytest.mark.slow
    @torch.no_grad()
    def test_export(self, model: EfficientNet) -> None:
        exported = torch.export.export(model, (X,))
        torch.testing.assert_close(exported.module()(X), model(X), rtol=1e-4, atol=1e-5)

    # Fewer blocks, because each takes a second: fused without and with an expansion, with a residual and without;
    # bottlenecks with squeeze-excitation, and in the headless network without.
    @pytest.mark.parametrize(
        "config",
        [
            replace(
                FUSED,
                stages=(
                    replace(FUSED.stages[0], repeats=1),
                    FUSED.stages[1],
                    BOTTLENECK.stages[2],
                ),
            ),
            HEADLESS,
        ],
        ids=["mixed", "headless"],
    )
    @torch.no_grad()
    def test_compile(self, model: EfficientNet) -> None:
        torch._dynamo.reset()
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(X), model(X), rtol=1e-4, atol=1e-5)

    def test_symbolic_trace_keeps_dropped_paths(self, model: EfficientNet) -> None:
        graph = torch.fx.symbolic_trace(model.train()).graph
        dropped = sum(getattr(node.target, "__name__", "") == "_drop" for node in graph.nodes)
        blocks = [block for stage in model.stages for block in stage]
        adding = [b for b in blocks if hasattr(b, "drop_path") and getattr(b, "residual", True)]
        rates = [block.drop_path.rate for block in adding]
        assert dropped == sum(rate > 0.0 for rate in rates) > 0


class TestTraining:
    def test_a_step_changes_every_kernel(self, config: effkernels.EfficientNetConfig) -> None:
        """With checkpoints; what BatchNorm is given may have no gradient, where another BatchNorm takes it off."""
        model = randomise(build(config, num_classes=7, drop_path=0.0))
        model.set_grad_checkpointing()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model(X).square().sum().backward()
        optimizer.step()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            assert parameter.dim() == 1 or not torch.equal(parameter, before[name]), name

    def test_paths_are_dropped(self, config: effkernels.EfficientNetConfig) -> None:
        torch.manual_seed(0)
        model = randomise(build(config, drop_path=0.9, dropout=0.0, num_classes=7))
        assert not torch.equal(model(X), model(X))

    def test_a_dropped_bottleneck_is_its_shortcut(self) -> None:
        block = Bottleneck(16, 16, inner_channels=4, drop_path=0.5).train()
        block.drop_path.rate = 1.0
        x = torch.randn(2, 16, 5, 5)
        torch.testing.assert_close(block(x), x.relu())


class TestConfigurations:
    def test_state_dicts_go_around(
        self, config: effkernels.EfficientNetConfig, tmp_path: Path
    ) -> None:
        model = randomise(build(config, num_classes=7))
        save_checkpoint(model, tmp_path / "saved.pth")
        again = build(config, num_classes=7, weights=tmp_path / "saved.pth")
        state = model.state_dict()
        assert again.state_dict().keys() == state.keys()
        assert all(torch.equal(v, state[k]) for k, v in again.state_dict().items())

    @pytest.mark.parametrize("phi", [0.5, 2.0])
    def test_compound_scaling(self, config: effkernels.EfficientNetConfig, phi: float) -> None:
        scaled = scaled_config(compound_scale(phi), config)
        cost = model_cost(scaled)
        model = build(scaled, device="meta")
        assert cost.params == sum(p.numel() for p in model.parameters())
        assert cost.macs > model_cost(config).macs

    def test_a_bottleneck_scales_in_both_widths(self) -> None:
        wide = replace(BOTTLENECK, coefficients=Coefficients(2.0, 1.0, 32, 0.0))
        block = build(wide, device="meta").stages[1][1]
        assert block.conv.conv.weight.shape[:2] == (64, 64)
        assert block.restore.conv.weight.shape[:2] == (256, 64)

    def test_other_formats_have_no_bottlenecks(self) -> None:
        state = build(BOTTLENECK, device="meta").state_dict()
        for name in ("timm", "torchvision", "lukemelas"):
            with pytest.raises(ValueError, match=r"no name for stages\.0\.0\.reduce\.conv"):
                export_state(state, name)

    def test_a_gate_that_a_format_has_not_is_named(self) -> None:
        state = build(FUSED, device="meta").state_dict()
        with pytest.raises(ValueError, match=r"timm.*no name for stages\.2\.0\.squeeze_excite"):
            export_state(state, "timm")


# Stages, stem and head of EfficientNetV2-S: repeats, stride, expansion, channels.
V2_S = replace(
    FUSED,
    name="efficientnetv2_s",
    stages=(
        *(
            StageConfig(repeats, 3, stride, expand, out, 0.0, "fused_mbconv")
            for repeats, stride, expand, out in [(2, 1, 1, 24), (4, 2, 4, 48), (4, 2, 4, 64)]
        ),
        *(
            StageConfig(repeats, 3, stride, expand, out)
            for repeats, stride, expand, out in [(6, 2, 4, 128), (9, 1, 6, 160), (15, 2, 6, 256)]
        ),
    ),
    stem_channels=24,
    head_channels=1280,
    channel_divisor=8,
)


class TestEfficientNetV2:
    def test_parameters_and_macs(self) -> None:
        cost = model_cost(V2_S, 384)
        assert (cost.params, round(cost.macs / 1e9, 3)) == (21_458_488, 8.366)
        assert round(model_cost(V2_S, 300).macs / 1e9, 3) == 5.308

    @pytest.mark.parametrize("publisher", ["timm", "torchvision"])
    @torch.no_grad()
    def test_their_weights_give_their_logits(self, publisher: str) -> None:
        if publisher == "timm":
            theirs = oracle("timm").create_model("tf_efficientnetv2_s")
            source = "timm/tf_efficientnet_b5"  # eps 1e-3, same padding
        else:
            theirs = oracle("torchvision.models").efficientnet_v2_s()
            source = "torchvision/efficientnet_b5"  # eps 1e-3
        theirs = randomise(theirs.eval(), size=40).eval()
        ours = build(V2_S, weights=theirs.state_dict(), source=source).eval()
        exported = export_state(ours.state_dict(), publisher)
        assert exported.keys() == theirs.state_dict().keys()
        x = torch.randn(2, 3, 40, 47)
        with OracleConvolutions():
            exact = copy.deepcopy(theirs).double()(x.double())
        assert exact.std() > 1e-2
        eager: Tensor = theirs(x.to(memory_format=torch.channels_last))
        assert_within_eager(ours(x), eager, exact)
