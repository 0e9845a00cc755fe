"""``effkernels convert``: files that other code bases can load, and files that it refuses to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import effkernels
from command_line import Run
from effkernels.checkpoints import read_state_dict, save_checkpoint
from oracles import oracle

B0 = "efficientnet_b0"
X = torch.rand(2, 3, 64, 64)


@pytest.fixture(scope="module")
def torchvision_like(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A B0 of five classes with torchvision's eps, random weights, in our own format."""
    path = tmp_path_factory.mktemp("weights") / "b0.pth"
    torch.manual_seed(0)
    model = effkernels.create_model(B0, num_classes=5, bn_eps=1e-5, bn_momentum=0.1)
    save_checkpoint(model, path)
    return path


@torch.inference_mode()
def ours(weights: Path) -> torch.Tensor:
    model = effkernels.create_model(B0, weights=weights, num_classes=5).eval()
    logits: torch.Tensor = model(X)
    return logits


@pytest.mark.parametrize(("target", "suffix"), [("torchvision", ".pth"), ("timm", ".safetensors")])
def test_the_other_code_base_computes_the_same(
    run: Run, torchvision_like: Path, tmp_path: Path, target: str, suffix: str
) -> None:
    output = tmp_path / f"converted{suffix}"
    result = run("convert", torchvision_like, output, "--to", target, "--model", B0)
    assert (result.exit_code, result.stderr) == (0, "")
    assert str(output) in result.stdout
    assert f"computes the same in {target}/{B0}" in result.stdout
    state = read_state_dict(output).state_dict
    if target == "timm":
        other = oracle("timm").create_model(B0, num_classes=5)
    else:
        other = oracle("torchvision").models.efficientnet_b0(num_classes=5)
    other.load_state_dict(state, strict=True)
    with torch.inference_mode():
        torch.testing.assert_close(other.eval()(X), ours(torchvision_like), rtol=1e-4, atol=1e-5)


def test_converting_back_gives_the_same_tensors(
    run: Run, torchvision_like: Path, tmp_path: Path
) -> None:
    there, back = tmp_path / "there.safetensors", tmp_path / "back.pth"
    assert run("convert", torchvision_like, there, "--to", "timm", "-m", B0).exit_code == 0
    assert run("convert", there, back, "--to", "effkernels", "-m", B0).exit_code == 0
    before, after = (read_state_dict(path).state_dict for path in (torchvision_like, back))
    assert list(before) == list(after)
    for key, value in before.items():
        assert torch.equal(value, after[key])


def test_an_option_chooses_between_trained_and_averaged_weights(
    run: Run, torchvision_like: Path, tmp_path: Path
) -> None:
    both, output = tmp_path / "last.pth.tar", tmp_path / "b0.pth"
    plain = read_state_dict(torchvision_like).state_dict
    averaged = {key: value + 1 for key, value in plain.items()}
    torch.save({"state_dict": plain, "state_dict_ema": averaged}, both)
    command = ("convert", both, output, "--to", "effkernels", "-m", B0)
    result = run(*command)
    assert result.exit_code == 2
    assert (
        "pass --use-ema to take the averaged ones (as timm does), or --no-use-ema" in result.stderr
    )
    for option, expected in (("--use-ema", averaged), ("--no-use-ema", plain)):
        assert run(*command, option, "--force").exit_code == 0
        found = read_state_dict(output).state_dict
        assert torch.equal(found["classifier.bias"], expected["classifier.bias"])


def test_16_bit_weights_and_other_channels_stay(run: Run, tmp_path: Path) -> None:
    model = effkernels.create_model(
        B0, num_classes=3, in_channels=1, dtype=torch.bfloat16, bn_eps=1e-5
    )
    save_checkpoint(model, given := tmp_path / "given.pth")
    assert run("convert", given, tmp_path / "out.pth", "--to", "timm", "-m", B0).exit_code == 0
    state = read_state_dict(tmp_path / "out.pth").state_dict
    assert state["conv_stem.weight"].dtype == torch.bfloat16
    assert state["conv_stem.weight"].shape[1] == 1


def test_changed_semantics_are_written_only_on_request(run: Run, tmp_path: Path) -> None:
    save_checkpoint(effkernels.create_model(B0, num_classes=2), given := tmp_path / "given.pth")
    arguments = ["convert", given, tmp_path / "out.pth", "--to", "torchvision", "--model", B0]
    assert "no efficientnet_b0 of torchvision computes the same" in run(*arguments).error
    assert not (tmp_path / "out.pth").exists()
    result = run(*arguments, "--allow-semantics-change")
    assert result.exit_code == 0
    assert "computes the same" not in result.stdout


def test_output_is_replaced_only_with_force(
    run: Run, torchvision_like: Path, tmp_path: Path
) -> None:
    output = tmp_path / "there.pth"
    output.write_text("precious")
    arguments = ["convert", torchvision_like, output, "--to", "timm", "--model", B0]
    assert "exists already: pass --force" in run(*arguments).error
    assert output.read_text() == "precious"
    assert run(*arguments, "--force").exit_code == 0
    assert read_state_dict(output).state_dict


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"input": "gone.pth"}, "no such checkpoint file: gone.pth"),
        ({"output": "TMP/no/such/folder.pth"}, "no such folder"),
        ({"output": "TMP"}, "it is a folder"),
        ({"output": "TMP/out.onnx"}, "the name must end in"),
        ({"--to": "keras"}, "'keras' is not one of"),
        ({"--model": "efficientnet_b00"}, "did you mean efficientnet_b0"),
        ({"--model": "efficientnet_b1"}, "the model to build is efficientnet_b1"),
    ],
)
def test_bad_arguments_are_one_line(
    run: Run, torchvision_like: Path, tmp_path: Path, changes: dict[str, str], said: str
) -> None:
    given = {"input": str(torchvision_like), "output": "TMP/out.pth", "--to": "timm", "--model": B0}
    given |= changes
    error = run(
        "convert",
        given["input"],
        given["output"].replace("TMP", str(tmp_path)),
        *("--to", given["--to"], "--model", given["--model"]),
    ).error
    assert said in error
    assert list(tmp_path.iterdir()) == []


def test_damaged_and_foreign_files_are_one_line(run: Run, tmp_path: Path) -> None:
    output = tmp_path / "out.pth"
    truncated, nan, other = (tmp_path / f"{name}.pth" for name in ("truncated", "nan", "other"))
    model = effkernels.create_model("efficientnet_lite0", num_classes=2)
    save_checkpoint(model, truncated)
    truncated.write_bytes(truncated.read_bytes()[:-5000])
    with torch.no_grad():
        model.classifier.get_parameter("bias").fill_(float("nan"))
    save_checkpoint(model, nan)
    torch.save({"weight": torch.zeros(3)}, other)
    rest = [output, "--to", "timm", "--model", "efficientnet_lite0"]
    assert "truncated" in run("convert", truncated, *rest).error
    assert "NaN" in run("convert", nan, *rest).error
    assert str(other) in run("convert", other, *rest).error
    headless = {k: v for k, v in model.state_dict().items() if not k.startswith("classifier")}
    torch.save(headless, other)
    assert "lacks classifier.weight" in run("convert", other, *rest).error
    assert not output.exists()


@pytest.mark.usefixtures("lite0_weights")
def test_lite_cannot_be_written_for_torchvision(run: Run, tmp_path: Path) -> None:
    rest = ["--to", "torchvision", "--model", "efficientnet_lite0"]
    error = run("convert", "imagenet", tmp_path / "out.pth", *rest).error
    assert "torchvision has no EfficientNet without squeeze-excitation" in error


@pytest.mark.usefixtures("lite0_weights")
def test_converted_real_weights_still_name_the_cat(
    run: Run, tmp_path: Path, cat: Image.Image
) -> None:
    output = tmp_path / "lite0.safetensors"
    result = run("convert", "imagenet", output, "--to", "timm", "--model", "efficientnet_lite0")
    assert result.exit_code == 0
    assert "computes the same in timm/tf_efficientnet_lite0" in result.stdout
    cat.save(picture := tmp_path / "cat.png")
    first, again = (
        json.loads(run("predict", picture, *weights, "--json").stdout)["pictures"][0]["top"]
        for weights in ([], ["--weights", output])
    )
    assert first == again
