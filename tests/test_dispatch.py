"""The choice of a backend, with backends made for the tests."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import effkernels
from effkernels import dispatch, ops
from processes import run_python

X, W = torch.randn(1, 4, 5, 5), torch.randn(4, 1, 3, 3)


def run() -> torch.Tensor:
    return ops.depthwise_conv_bn_act(X, W, padding=1)


REFERENCE = run()


def _marked(x: torch.Tensor, *_: Any) -> torch.Tensor:
    return torch.full_like(x, 7.0, memory_format=torch.channels_last)


def _rejects(x: torch.Tensor, *_: Any) -> str | None:
    return "it takes no batches" if x.shape[0] > 1 else None


@pytest.fixture
def fake_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[dispatch.Backend]:
    """A "cpu" backend with one kernel, which returns sevens."""
    fake = dispatch.Backend("cpu", ("cpu",))
    monkeypatch.setitem(dispatch._BACKENDS, "cpu", fake)
    monkeypatch.setattr(dispatch, "_warned", set())
    dispatch.register_kernel("cpu", "depthwise_conv_bn_act", _marked, _rejects)
    torch._dynamo.reset()
    yield fake
    torch._dynamo.reset()


def sevens(y: torch.Tensor) -> bool:
    return bool((y == 7.0).all())


def test_status_names_every_backend_fastest_first_with_reasons() -> None:
    status = effkernels.backends()
    assert list(status) == ["cuda", "triton", "cpu", "torch"]
    assert status["torch"].available
    for one in status.values():
        assert one.available == (one.reason is None)


def test_the_fastest_that_accepts_runs(fake_cpu: dispatch.Backend) -> None:
    assert sevens(run())
    assert effkernels.backends()["cpu"].ops == ("depthwise_conv_bn_act",)
    assert sevens(
        torch.ops.effkernels.depthwise_conv_bn_act(
            X, W, None, None, None, None, None, 0.0, [1, 1], [1] * 4, [1, 1], "silu"
        )
    )


def messages(warned: pytest.WarningsRecorder) -> list[str]:
    return [str(w.message) for w in warned if issubclass(w.category, effkernels.FallbackWarning)]


def test_rejected_arguments_fall_back_with_one_line(
    fake_cpu: dispatch.Backend, recwarn: pytest.WarningsRecorder
) -> None:
    x = torch.cat([X, X])
    for _ in range(3):
        y = ops.depthwise_conv_bn_act(x, W, padding=1)
    torch.testing.assert_close(y[:1], REFERENCE)
    assert messages(recwarn) == [
        "depthwise_conv_bn_act: not on the cpu backend: it takes no batches"
    ]


def test_a_fallback_warns_at_each_place_and_names_it(
    fake_cpu: dispatch.Backend, recwarn: pytest.WarningsRecorder
) -> None:
    x = torch.cat([X, X])
    ops.depthwise_conv_bn_act(x, W, padding=1)
    ops.depthwise_conv_bn_act(x, W, padding=1)
    warned = [w for w in recwarn if w.category is effkernels.FallbackWarning]
    assert len(warned) == 2
    assert {w.filename for w in warned} == {__file__}
    assert warned[1].lineno == warned[0].lineno + 1


def test_if_warnings_are_errors_each_fallback_raises(fake_cpu: dispatch.Backend) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", effkernels.FallbackWarning)
        for _ in range(2):
            with pytest.raises(effkernels.FallbackWarning, match="it takes no batches"):
                ops.depthwise_conv_bn_act(torch.cat([X, X]), W, padding=1)


def test_op_without_a_kernel_falls_back_with_one_line(
    fake_cpu: dispatch.Backend, recwarn: pytest.WarningsRecorder
) -> None:
    for _ in range(2):
        ops.conv_bn_act(X, torch.randn(3, 4, 3, 3))
    assert messages(recwarn) == [
        "conv_bn_act: not on the cpu backend: it has no kernel for this op"
    ]


def test_a_missing_block_is_composed_of_the_backends_ops(
    fake_cpu: dispatch.Backend, recwarn: pytest.WarningsRecorder
) -> None:
    project = ops.Conv(torch.eye(4))
    y = ops.mbconv(X, None, ops.Conv(W), None, project, padding=1)
    assert sevens(y)
    assert not any("mbconv" in m for m in messages(recwarn))


def test_a_rejected_block_is_composed_of_the_backends_ops(
    fake_cpu: dispatch.Backend, recwarn: pytest.WarningsRecorder
) -> None:
    name = "expand_depthwise_conv_bn_act"
    dispatch.register_kernel("cpu", name, _marked, lambda *_: "two kernels are faster")
    dispatch.register_kernel("cpu", "pointwise_conv_bn_act", _marked, _rejects)

    def block(x: torch.Tensor) -> torch.Tensor:
        return ops.expand_depthwise_conv_bn_act(x, ops.Conv(torch.eye(4)), ops.Conv(W), padding=1)

    assert sevens(block(X))
    with effkernels.use_backend("cpu", fallback=False):
        assert sevens(block(X))
        # The ops that it consists of must take it.
        with pytest.raises(NotImplementedError, match=r"^pointwise_conv_bn_act: .* no batches"):
            block(torch.cat([X, X]))
    assert not messages(recwarn)
    block(torch.cat([X, X]))
    assert {m.split(":")[0] for m in messages(recwarn)} == {
        "pointwise_conv_bn_act",
        "depthwise_conv_bn_act",
    }


def test_tensors_on_unsupported_devices_do_not_warn(
    fake_cpu: dispatch.Backend, recwarn: pytest.WarningsRecorder
) -> None:
    y = ops.depthwise_conv_bn_act(X.to("meta"), W.to("meta"), padding=1)
    assert y.device.type == "meta"
    assert not messages(recwarn)


def test_torch_can_be_forced(fake_cpu: dispatch.Backend) -> None:
    with effkernels.use_backend("torch"):
        torch.testing.assert_close(run(), REFERENCE)
        with effkernels.use_backend("auto"):
            assert sevens(run())
        torch.testing.assert_close(run(), REFERENCE)
    assert sevens(run())


def test_forced_without_fallback_raises(fake_cpu: dispatch.Backend) -> None:
    with effkernels.use_backend("cpu", fallback=False):
        assert sevens(run())
        with pytest.raises(NotImplementedError, match="takes no batches"):
            ops.depthwise_conv_bn_act(torch.cat([X, X]), W)
        with pytest.raises(NotImplementedError, match="cpu tensors, not meta"):
            ops.depthwise_conv_bn_act(X.to("meta"), W.to("meta"))


def test_the_choice_ends_with_an_exception(fake_cpu: dispatch.Backend) -> None:
    with pytest.raises(KeyError), effkernels.use_backend("torch"):
        raise KeyError
    assert sevens(run())


def test_each_thread_chooses_for_itself(fake_cpu: dispatch.Backend) -> None:
    found: list[bool] = []
    with effkernels.use_backend("torch"):
        thread = threading.Thread(target=lambda: found.append(sevens(run())))
        thread.start()
        thread.join()
        assert not sevens(run())
    assert found == [True]


class Heard:
    """Records what it is told, and replaces every result by ones."""

    def __init__(self) -> None:
        self.decisions: list[dispatch.Decision] = []

    def chosen(self, decision: dispatch.Decision, run: Any) -> Any:
        self.decisions.append(decision)
        return lambda x, *_: torch.ones_like(x)

    def declined(self, op: str, reason: str) -> None:
        raise AssertionError(f"{op} declined: {reason}")


def test_a_watcher_is_called_for_its_own_thread(fake_cpu: dispatch.Backend) -> None:
    heard, found = Heard(), []
    with dispatch.watching(heard):
        thread = threading.Thread(target=lambda: found.append(sevens(run())))
        thread.start()
        thread.join()
        assert (run() == 1.0).all()
        ops.depthwise_conv_bn_act(torch.cat([X, X]), W, padding=1)
        with effkernels.use_backend("torch"):
            run()
    assert found == [True]
    assert sevens(run())
    op = "depthwise_conv_bn_act"
    assert heard.decisions == [
        dispatch.Decision(op, "cpu", (), forced=False, run_by_parts=False),
        dispatch.Decision(op, "torch", (("cpu", "it takes no batches"),), False, False),
        dispatch.Decision(op, "torch", (), forced=True, run_by_parts=False),
    ]


def test_compiled_code_follows_the_choice(fake_cpu: dispatch.Backend) -> None:
    compiled = torch.compile(run, fullgraph=True, backend="eager")
    for _ in range(2):
        assert sevens(compiled())
        with effkernels.use_backend("torch"):
            torch.testing.assert_close(compiled(), REFERENCE)
    found: list[bool] = []

    def in_thread() -> None:
        with effkernels.use_backend("torch"):
            found.append(sevens(compiled()))
        found.append(sevens(compiled()))

    thread = threading.Thread(target=in_thread)
    thread.start()
    thread.join()
    assert found == [False, True]


def test_the_choice_can_be_made_inside_compiled_code(fake_cpu: dispatch.Backend) -> None:
    def both() -> tuple[torch.Tensor, torch.Tensor]:
        with effkernels.use_backend("torch"):
            first = run()
        return first, run()

    first, second = torch.compile(both, fullgraph=True, backend="eager")()
    torch.testing.assert_close(first, REFERENCE)
    assert sevens(second)
    assert sevens(run())


def test_a_fallback_warns_while_compiling(
    fake_cpu: dispatch.Backend, recwarn: pytest.WarningsRecorder
) -> None:
    compiled = torch.compile(ops.conv_bn_act, fullgraph=True, backend="eager")
    for _ in range(2):
        compiled(X, torch.randn(3, 4, 3, 3))
    assert sum("no kernel for this op" in m for m in messages(recwarn)) == 1


def test_a_private_op_shares_the_contract(fake_cpu: dispatch.Backend) -> None:
    from effkernels.ops import _define

    contract = _define.defined("depthwise_conv_bn_act")
    op = _define.define_private("depthwise_conv_bn_act", "testing")
    library = torch.library.Library("effkernels_testing", "IMPL")
    library.impl("depthwise_conv_bn_act", lambda *a: contract.reference(*a).clone(), "CPU")
    dispatch.register_kernel("cpu", "depthwise_conv_bn_act", op, _rejects)
    weight = W.clone().requires_grad_()
    y = ops.depthwise_conv_bn_act(X, weight, padding=1)
    torch.testing.assert_close(y, REFERENCE)
    with effkernels.use_backend("torch"):
        eager = ops.depthwise_conv_bn_act(X, weight, padding=1)
    gradients = [torch.autograd.grad(z.square().sum(), weight)[0] for z in (y, eager)]
    torch.testing.assert_close(*gradients)
    bn = (None,) * 5
    torch.library.opcheck(op, (X, weight, *bn, 0.0, [1, 1], [1] * 4, [1, 1], "silu"))
    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend="aot_eager")(), REFERENCE)


@pytest.mark.parametrize("name", ["tensorrt", "", "CUDA "])
def test_unknown_backend(name: str) -> None:
    with pytest.raises(ValueError, match="there are cuda, triton, cpu, torch"):
        effkernels.use_backend(name)


def test_unavailable_backend_says_why(fake_cpu: dispatch.Backend) -> None:
    dispatch.mark_unavailable("cpu", "the processor is on holiday")
    with pytest.raises(ValueError, match="on holiday"):
        effkernels.use_backend("cpu")
    torch.testing.assert_close(run(), REFERENCE)
    dispatch.mark_available("cpu")
    assert sevens(run())


def test_environment_variable() -> None:
    show = "import effkernels.dispatch as b; print(b._choice.name)"
    assert run_python("-c", show, EFFKERNELS_BACKEND=" Torch ").stdout.strip() == "torch"


@pytest.mark.parametrize(("value", "name"), [("auto", None), (" ", None), ("CPU", "cpu")])
def test_values_of_the_environment_variable(
    value: str, name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EFFKERNELS_BACKEND", value)
    assert dispatch._from_environment() == name


def test_environment_variable_without_such_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch._choice, "name", "cudnn")  # as if read at import
    said = "EFFKERNELS_BACKEND: no backend is called 'cudnn'; there are cuda, triton, cpu"
    with pytest.raises(ValueError, match=said):
        run()


def test_environment_variable_of_an_unavailable_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch._choice, "name", "triton")
    monkeypatch.setattr(dispatch._BACKENDS["triton"], "unavailable", "gone")
    with pytest.raises(
        ValueError, match="EFFKERNELS_BACKEND: backend 'triton' is not available: gone"
    ):
        run()
