"""Checkpoint files, good and bad."""

from __future__ import annotations

import argparse
import pickle
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import effkernels
from effkernels.checkpoints import (
    Semantics,
    read_state_dict,
    resolve,
    save_checkpoint,
    semantics_of,
)
from effkernels.checkpoints.files import unwrap
from effkernels.preprocessing import Preprocessing
from oracles import oracle
from state_dicts import equal

TRUE = Semantics(1e-3, 0.01, "same", Preprocessing(size=240))


class Payload:
    """Writes a file when it is unpickled, as an attacker's pickle might."""

    def __init__(self, target: Path) -> None:
        self.target = str(target)

    def __reduce__(self):
        return (open, (self.target, "w"))


class TestReading:
    @pytest.mark.parametrize("suffix", ["pth", "pt", "bin", "ckpt", "pth.tar"])
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_torch_files(self, b0_state, tmp_path: Path, suffix, zipped):
        path = tmp_path / f"weights.{suffix}"
        torch.save(b0_state, path, _use_new_zipfile_serialization=zipped)
        assert equal(read_state_dict(path).state_dict, b0_state)

    def test_safetensors(self, b0_state, tmp_path: Path):
        save_file = pytest.importorskip("safetensors.torch").save_file
        save_file(b0_state, tmp_path / "weights.safetensors", metadata={"format": "pt"})
        found = read_state_dict(tmp_path / "weights.safetensors")
        assert equal(dict(sorted(found.state_dict.items())), dict(sorted(b0_state.items())))
        assert found.record == {}

    def test_a_string_is_a_path_too(self, b0_state, tmp_path: Path):
        torch.save(b0_state, tmp_path / "weights.pth")
        assert len(read_state_dict(str(tmp_path / "weights.pth")).state_dict) == 360


class TestArguments:
    """argparse.Namespace is plain data, which training scripts save beside the weights."""

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_namespace(self, b0_state, tmp_path: Path, zipped):
        path = tmp_path / "last.pth.tar"
        args = argparse.Namespace(lr=0.1, size=(224, 224), out=None)
        torch.save(
            {"state_dict": b0_state, "args": args}, path, _use_new_zipfile_serialization=zipped
        )
        assert equal(read_state_dict(path).state_dict, b0_state)
        assert argparse.Namespace not in torch.serialization.get_safe_globals()

    def test_checkpoint_of_timms_saver(self, tmp_path: Path):
        timm = oracle("timm")
        model = timm.create_model("tf_efficientnet_b0")
        average = timm.utils.ModelEmaV3(model)
        for tensor in average.module.state_dict().values():
            tensor += 1
        saver = timm.utils.CheckpointSaver(
            model,
            torch.optim.SGD(model.parameters(), 0.1, momentum=0.9),
            args=argparse.Namespace(model="tf_efficientnet_b0", lr=0.1),
            model_ema=average,
            checkpoint_dir=str(tmp_path),
            recovery_dir=str(tmp_path),
        )
        saver.save_checkpoint(0, metric=1.0)
        path = tmp_path / "last.pth.tar"
        options = {"weights": path, "source": "timm/tf_efficientnet_b0"}
        with pytest.raises(ValueError, match=r"last\.pth\.tar holds trained .*use_ema=True"):
            effkernels.create_model("efficientnet_b0", **options)
        for use_ema, theirs in ((False, model), (True, average.module)):
            ours = effkernels.create_model("efficientnet_b0", use_ema=use_ema, **options)
            assert torch.equal(ours.classifier.weight, theirs.classifier.weight)
            assert torch.equal(ours.stem.bn.running_var, theirs.bn1.running_var)


class TestWrappers:
    @pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict", "net", "module"])
    def test_names(self, b0_state, name):
        saved = {"epoch": 3, name: b0_state, "optimizer": {"state": {}, "param_groups": []}}
        assert equal(unwrap(saved, "test").state_dict, b0_state)

    @pytest.mark.parametrize("name", ["state_dict_ema", "model_ema", "ema_state_dict", "ema"])
    def test_the_caller_chooses_between_trained_and_averaged_weights(self, b0_state, name):
        averaged = {key: value + 1 for key, value in b0_state.items()}
        saved = {"state_dict": b0_state, name: averaged}
        with pytest.raises(
            ValueError, match=f"trained weights .*'{name}'.*use_ema=True.*False"
        ) as e:
            unwrap(saved, "test")
        assert "\n" not in str(e.value)
        assert equal(unwrap(saved, "test", use_ema=False).state_dict, b0_state)
        assert equal(unwrap(saved, "test", use_ema=True).state_dict, averaged)

    def test_torchvisions_training_script(self, b0, b0_state):
        averaged = torch.optim.swa_utils.AveragedModel(b0, use_buffers=True)
        saved = {"model": b0_state, "model_ema": averaged.state_dict(), "epoch": 1}
        assert equal(unwrap(saved, "test", use_ema=True).state_dict, b0.state_dict())
        assert equal(unwrap(saved, "test", use_ema=False).state_dict, b0_state)

    def test_several_state_dicts(self, b0_state):
        saved = {"model": b0_state, "net": dict(b0_state), "epoch": 1}
        with pytest.raises(ValueError, match=r"holds 2 state dicts .'model', 'net'"):
            unwrap(saved, "test")
        assert equal(unwrap({"model": b0_state, "net": {"depth": 3}}, "test").state_dict, b0_state)

    def test_averaged_weights_alone(self, b0_state):
        assert equal(unwrap({"ema": {"module": b0_state}}, "test").state_dict, b0_state)
        assert equal(unwrap({"model_ema": b0_state}, "test").state_dict, b0_state)

    def test_requested_averaged_weights_are_missing(self, b0_state):
        with pytest.raises(ValueError, match="use_ema=True, but it holds no state_dict_ema"):
            unwrap({"state_dict": b0_state}, "test", use_ema=True)
        with pytest.raises(ValueError, match="use_ema=True"):
            unwrap(b0_state, "test", use_ema=True)

    def test_requested_trained_weights_are_missing(self, b0_state):
        saved = {"model_ema": b0_state, "epoch": 1}
        with pytest.raises(ValueError, match="use_ema=False, but it holds no weights that are not"):
            unwrap(saved, "test", use_ema=False)

    @pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:Validating sparse")
    @pytest.mark.parametrize(
        ("layout", "key"),
        [
            (torch.sparse_coo, "classifier.weight"),
            (torch.sparse_coo, "classifier.bias"),
            (torch.sparse_csr, "classifier.weight"),  # a layout that only matrices have
        ],
    )
    def test_sparse_tensors_become_dense(self, b0, b0_state, tmp_path: Path, layout, key):
        b0_state[key][:500] = 0  # as after pruning
        sparse = {**b0_state, key: b0_state[key].to_sparse(layout=layout)}
        torch.save(sparse, tmp_path / "pruned.pth")
        for weights in (sparse, tmp_path / "pruned.pth"):
            model = effkernels.create_model("efficientnet_b0", weights=weights)
            assert equal(model.state_dict(), b0_state)

    def test_averaged_model_of_torch(self, b0):
        averaged = torch.optim.swa_utils.AveragedModel(b0, use_buffers=True)
        assert equal(unwrap(averaged.state_dict(), "test").state_dict, b0.state_dict())

    @pytest.mark.parametrize(
        ("loaded", "message"),
        [
            ({}, "the state dict is empty"),
            ({"state_dict": {}}, "the state dict is empty"),
            (torch.zeros(3), "holds a Tensor, not a state dict"),
            ([1, 2], "holds a list, not a state dict"),
            ({"epoch": 3, "lr": 0.1}, "2 of 2 entries are not tensors: epoch, lr"),
        ],
    )
    def test_no_state_dict(self, loaded, message):
        with pytest.raises(ValueError, match=message):
            unwrap(loaded, "test")


class TestBadFiles:
    def refused(self, path: Path, reason: str) -> str:
        with pytest.raises(ValueError, match=reason) as caught:
            read_state_dict(path)
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        return message

    def test_missing(self, tmp_path: Path):
        self.refused(tmp_path / "nowhere.pth", "no such checkpoint file")

    def test_folder(self, tmp_path: Path):
        self.refused(tmp_path, "is a folder")

    def test_unknown_suffix(self, tmp_path: Path):
        (tmp_path / "weights.h5").write_bytes(b"x")
        self.refused(tmp_path / "weights.h5", "unknown file name extension '.h5'; accepted: .pth")

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_empty(self, tmp_path: Path, suffix):
        (tmp_path / f"weights.{suffix}").touch()
        self.refused(tmp_path / f"weights.{suffix}", "is empty")

    @pytest.mark.parametrize("kept", [3, 100, 5000, 0.5, 0.99, -1])
    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_truncated_pickle(self, b0_state, tmp_path: Path, zipped, kept):
        path = tmp_path / "cut.pth"
        torch.save(b0_state, path, _use_new_zipfile_serialization=zipped)
        self.truncate(path, kept)
        self.refused(path, "truncated, corrupt")

    @pytest.mark.parametrize("kept", [3, 100, 0.5, 0.99, -1])
    def test_truncated_safetensors(self, b0_state, tmp_path: Path, kept):
        save_file = pytest.importorskip("safetensors.torch").save_file
        path = tmp_path / "cut.safetensors"
        save_file(b0_state, path)
        self.truncate(path, kept)
        self.refused(path, "truncated, corrupt")

    @staticmethod
    def truncate(path: Path, kept: float) -> None:
        whole = path.read_bytes()
        length = len(whole) + kept if kept < 0 else kept if kept > 1 else len(whole) * kept
        path.write_bytes(whole[: int(length)])

    @pytest.mark.parametrize("suffix", ["pth", "safetensors"])
    def test_noise(self, tmp_path: Path, suffix):
        path = tmp_path / f"noise.{suffix}"
        path.write_bytes(bytes(range(256)) * 40)
        self.refused(path, "truncated, corrupt")

    def test_git_lfs_pointer(self, tmp_path: Path):
        path = tmp_path / "weights.safetensors"
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
        self.refused(path, "Git LFS pointer.*git lfs pull")

    def test_web_page(self, tmp_path: Path):
        path = tmp_path / "weights.pth"
        path.write_text("<!DOCTYPE html><title>404</title>")
        self.refused(path, "is a web page")

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_code_in_a_pickle_never_runs(self, b0_state, tmp_path: Path, zipped):
        trace = tmp_path / "trace"
        path = tmp_path / "attack.pth"
        torch.save(
            {"state_dict": b0_state, "extra": Payload(trace)},
            path,
            _use_new_zipfile_serialization=zipped,
        )
        message = self.refused(path, "run code while it is read")
        assert "open" in message
        assert not trace.exists()

    @pytest.mark.filterwarnings("ignore:Detected pickle protocol")
    def test_code_in_a_bare_pickle_never_runs(self, tmp_path: Path):
        trace = tmp_path / "trace"
        path = tmp_path / "attack.pth"
        path.write_bytes(pickle.dumps(Payload(trace)))
        self.refused(path, "run code while|truncated, corrupt")
        assert not trace.exists()

    def test_training_checkpoint_with_python_objects(self, b0_state, tmp_path: Path):
        path = tmp_path / "last.pth.tar"
        torch.save({"state_dict": b0_state, "args": SimpleNamespace(lr=0.1)}, path)
        message = self.refused(path, r"needs types.SimpleNamespace")
        assert (
            "save the state dict alone with torch.save(model.state_dict(), 'weights.pth')"
            in message
        )

    def test_code_inside_of_arguments_never_runs(self, b0_state, tmp_path: Path):
        trace, path = tmp_path / "trace", tmp_path / "attack.pth"
        torch.save({"state_dict": b0_state, "args": argparse.Namespace(x=Payload(trace))}, path)
        assert "open" in self.refused(path, "run code while it is read")
        assert not trace.exists()

    def test_pickled_model(self, b0, tmp_path: Path):
        torch.save(b0, tmp_path / "model.pth")
        self.refused(tmp_path / "model.pth", "needs effkernels")

    @pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:'torch.load' received a zip")
    def test_torchscript(self, tmp_path: Path):
        scripted = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))
        scripted.save(str(tmp_path / "scripted.pt"))
        self.refused(tmp_path / "scripted.pt", "not a torch checkpoint")

    def test_missing_safetensors_names_the_extra(self, monkeypatch, tmp_path: Path):
        (tmp_path / "weights.safetensors").write_bytes(bytes(100))
        monkeypatch.setitem(sys.modules, "safetensors", None)
        with pytest.raises(ImportError, match=r'pip install "effkernels\[hub\]"'):
            read_state_dict(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
class TestSaving:
    @pytest.fixture(autouse=True)
    def _needs(self, suffix):
        if suffix == "safetensors":
            pytest.importorskip("safetensors")

    def test_round_trip_with_the_record(self, b0_state, tmp_path: Path, suffix):
        path = tmp_path / f"b0.{suffix}"
        save_checkpoint(b0_state, path, variant="efficientnet_b0", semantics=TRUE)
        found = read_state_dict(path)
        assert equal(dict(sorted(found.state_dict.items())), dict(sorted(b0_state.items())))
        assert found.record["format"] == "effkernels"
        resolved = resolve(path, variant="efficientnet_b0")
        assert resolved.semantics == TRUE
        assert resolved.origin == str(path)

    def test_other_code_reads_a_plain_state_dict(self, b0, tmp_path: Path, suffix):
        path = tmp_path / f"b0.{suffix}"
        save_checkpoint(b0, path)
        if suffix == "pth":
            plain = torch.load(path, weights_only=True)
            assert isinstance(plain, OrderedDict)
        else:
            from safetensors.torch import load_file

            plain = load_file(path)
        b0.load_state_dict(plain, strict=True)

    def test_semantics_are_taken_from_the_model(self, b0, tmp_path: Path, suffix):
        save_checkpoint(torch.nn.DataParallel(b0), tmp_path / f"b0.{suffix}")
        resolved = resolve(tmp_path / f"b0.{suffix}", variant="efficientnet_b0")
        assert resolved.semantics == semantics_of(b0)
        assert resolved.semantics == Semantics(1e-3, 0.01, "symmetric", b0.preprocessing)

    def test_views_and_channels_last_are_written_densely(self, b0, tmp_path: Path, suffix):
        b0.to(memory_format=torch.channels_last)
        big = torch.zeros(3, *b0.classifier.weight.shape)
        with torch.no_grad():
            b0.classifier.weight.set_(big[1])
        save_checkpoint(b0, tmp_path / f"b0.{suffix}")
        assert (tmp_path / f"b0.{suffix}").stat().st_size < 23e6
        found = read_state_dict(tmp_path / f"b0.{suffix}").state_dict
        assert torch.equal(found["stem.conv.weight"], b0.state_dict()["stem.conv.weight"])

    def test_a_failed_write_leaves_the_old_file(self, b0, monkeypatch, tmp_path: Path, suffix):
        path = tmp_path / f"b0.{suffix}"
        path.write_bytes(b"old")

        def fail(tensors, file, *_, **__):
            Path(file).write_bytes(b"half")
            raise OSError("disk full")

        monkeypatch.setattr(torch, "save", fail)
        if suffix == "safetensors":
            monkeypatch.setattr("safetensors.torch.save_file", fail)
        with pytest.raises(OSError, match="disk full"):
            save_checkpoint(b0, path)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]


class TestSavingErrors:
    def test_suffix(self, b0, tmp_path: Path):
        with pytest.raises(ValueError, match=r"must end in \.pth"):
            save_checkpoint(b0, tmp_path / "b0.onnx")

    def test_no_such_folder(self, b0, tmp_path: Path):
        with pytest.raises(ValueError, match="no such folder"):
            save_checkpoint(b0, tmp_path / "nowhere" / "b0.pth")

    def test_state_dict_alone(self, b0_state, tmp_path: Path):
        with pytest.raises(ValueError, match="pass variant= and semantics="):
            save_checkpoint(b0_state, tmp_path / "b0.pth")

    def test_foreign_model(self, tmp_path: Path):
        with pytest.raises(ValueError, match="Linear is not an EfficientNet of this package"):
            save_checkpoint(torch.nn.Linear(2, 2), tmp_path / "b0.pth")

    def test_damaged_record(self, b0_state):
        damaged = OrderedDict(b0_state)
        damaged.effkernels = "{"
        with pytest.raises(ValueError, match="effkernels metadata is damaged"):
            resolve(damaged, variant="efficientnet_b0")
