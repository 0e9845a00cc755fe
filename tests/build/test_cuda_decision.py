"""Which nvcc is found, when the CUDA module is built, and for which architectures."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest

from effkernels_build.cuda import (
    Nvcc,
    arch_list,
    cuda_mode,
    default_archs,
    device_archs,
    find_nvcc,
    gencode_flags,
    tensor_memory_archs,
    warpgroup_archs,
    why_not,
)
from effkernels_build.toolchain import BuildError, Missing, Torch

NO_HOMES: tuple[str, ...] = ()


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


def toolkit(home: Path, version: str) -> Path:
    """A folder that looks like a CUDA toolkit: its nvcc prints a version and its location."""
    answer = f"echo 'Cuda compilation tools, release {version}, V{version}.1'"
    dry_run = f"echo '#$ _SPACE_= ' >&2; echo '#$ TOP={home}/bin/..' >&2"
    executable(home / "bin" / "nvcc", f'case "$1" in --version) {answer};; *) {dry_run};; esac\n')
    return home


def path_of(*folders: Path) -> dict[str, str]:
    # The shell that runs a fake nvcc needs no PATH.
    return {"PATH": os.pathsep.join(map(str, folders))}


class TestFindNvcc:
    @pytest.mark.parametrize("variable", ["CUDA_HOME", "CUDA_PATH"])
    def test_environment_first(self, tmp_path: Path, variable: str) -> None:
        named, other = toolkit(tmp_path / "named", "12.8"), toolkit(tmp_path / "other", "13.0")
        env = {**path_of(other / "bin"), variable: str(named)}
        assert find_nvcc(env, NO_HOMES) == Nvcc(named / "bin" / "nvcc", named, (12, 8))

    def test_named_folder_without_nvcc_is_not_replaced(self, tmp_path: Path) -> None:
        other = toolkit(tmp_path / "other", "13.0")
        env = {**path_of(other / "bin"), "CUDA_HOME": str(tmp_path / "empty")}
        found = find_nvcc(env, [str(other)])
        assert found == Missing(f"CUDA_HOME={tmp_path / 'empty'} has no bin/nvcc")

    def test_wrapper_outside_of_its_toolkit(self, tmp_path: Path) -> None:
        home = toolkit(tmp_path / "cuda-13.0", "13.0")
        wrapper = executable(tmp_path / "bin" / "nvcc", f'exec {home}/bin/nvcc "$@"\n')
        assert find_nvcc(path_of(wrapper.parent), NO_HOMES) == Nvcc(wrapper, home, (13, 0))

    def test_link_to_a_toolkit(self, tmp_path: Path) -> None:
        home = toolkit(tmp_path / "cuda-13.0", "13.0")
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "nvcc").symlink_to(home / "bin" / "nvcc")
        found = find_nvcc(path_of(tmp_path / "bin"), NO_HOMES)
        assert isinstance(found, Nvcc)
        assert found.home == home

    def test_nvcc_that_does_not_say_where_it_lies(self, tmp_path: Path) -> None:
        nvcc = executable(tmp_path / "bin" / "nvcc", "echo 'release 12.4, V12.4.1'\n")
        assert find_nvcc(path_of(nvcc.parent), NO_HOMES) == Nvcc(nvcc, tmp_path, (12, 4))

    def test_usual_folders_newest_first(self, tmp_path: Path) -> None:
        for version in ("9.2", "12.8", "13.0"):
            toolkit(tmp_path / f"cuda-{version}", version)
        found = find_nvcc(path_of(), [str(tmp_path / "cuda")])
        assert isinstance(found, Nvcc)
        assert found.version == (13, 0)

    def test_broken_nvcc_is_passed_over(self, tmp_path: Path) -> None:
        broken = executable(tmp_path / "bin" / "nvcc", "echo 'gone: /opt/x/nvcc'; exit 3\n")
        home = toolkit(tmp_path / "cuda", "13.0")
        assert find_nvcc(path_of(broken.parent), [str(home)]) == Nvcc(
            home / "bin" / "nvcc", home, (13, 0)
        )
        assert find_nvcc(path_of(broken.parent), NO_HOMES) == Missing(
            f"{broken} does not run: gone: /opt/x/nvcc"
        )

    def test_none(self, tmp_path: Path) -> None:
        found = find_nvcc(path_of(tmp_path), [str(tmp_path / "cuda")])
        assert isinstance(found, Missing)
        assert "no nvcc" in found.reason


class TestDecision:
    NVCC = Nvcc(Path("/t/bin/nvcc"), Path("/t"), (13, 0))
    TORCH = Torch("2.15.0+cu132", "13.2", Path("/torch"))

    def test_same_major_version_is_enough(self) -> None:
        assert why_not(self.TORCH, self.NVCC) is None

    @pytest.mark.parametrize(
        ("torch", "nvcc", "reason"),
        [
            (Missing("no torch"), NVCC, "no torch"),
            (Torch("2.13.0+cpu", None, Path("/torch")), NVCC, "2.13.0+cpu is built without CUDA"),
            (Torch("2.13.0+cpu", None, Path("/torch")), Missing("no nvcc"), "without CUDA"),
            (TORCH, Missing("no nvcc"), "no nvcc"),
            (TORCH, Nvcc(Path("/t/bin/nvcc"), Path("/t"), (11, 8)), "too old: 12.0 or newer"),
            (
                TORCH,
                Nvcc(Path("/t/bin/nvcc"), Path("/t"), (12, 9)),
                "does not match torch's CUDA 13.2",
            ),
        ],
    )
    def test_why_not(self, torch: Torch | Missing, nvcc: Nvcc | Missing, reason: str) -> None:
        found = why_not(torch, nvcc)
        assert found is not None
        assert reason in found

    @pytest.mark.parametrize(
        ("value", "mode"),
        [(None, "auto"), ("", "auto"), ("AUTO", "auto"), ("0", "0"), (" 1 ", "1")],
    )
    def test_mode(self, value: str | None, mode: str) -> None:
        assert cuda_mode({} if value is None else {"EFFKERNELS_CUDA": value}) == mode

    @pytest.mark.parametrize("value", ["2", "yes", "on", "true", "off"])
    def test_bad_mode(self, value: str) -> None:
        with pytest.raises(BuildError, match=r"EFFKERNELS_CUDA='.*': accepted are auto"):
            cuda_mode({"EFFKERNELS_CUDA": value})


class TestArchs:
    def test_defaults_have_ptx_that_newer_gpus_run(self) -> None:
        assert default_archs((12, 4), "x86_64") == ["8.0+PTX", "9.0a"]
        assert default_archs((12, 8), "x86_64") == ["8.0", "9.0a", "10.0", "12.0+PTX"]
        assert default_archs((13, 0), "x86_64") == default_archs((12, 8), "x86_64")
        assert "11.0" in default_archs((13, 0), "aarch64")

    @pytest.mark.parametrize(
        ("text", "archs"),
        [
            ("9.0", ["9.0"]),
            ("8.0;9.0a;12.0+PTX", ["8.0", "9.0a", "12.0+PTX"]),
            (" 8.0, 9.0  9.0 ;", ["8.0", "9.0"]),
            ("Hopper", ["9.0a"]),
            ("Ampere;Blackwell", ["8.0", "8.6+PTX", "10.0", "12.0+PTX"]),
            ("Blackwell+Tegra", ["11.0"]),
            ("10.0f", ["10.0f"]),
        ],
    )
    def test_list(self, text: str, archs: list[str]) -> None:
        assert arch_list({"TORCH_CUDA_ARCH_LIST": text}, (13, 0)) == archs

    def test_unset(self) -> None:
        for env in ({}, {"TORCH_CUDA_ARCH_LIST": "  "}):
            assert arch_list(env, (13, 0)) == default_archs((13, 0))

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("sm_90", "'sm_90' is not an architecture"),
            ("9.0;native", "'native' is not an architecture"),
            ("7.5;9.0", "7.5 is too old"),
            ("Volta", "'Volta' is not an architecture"),
            ("90", "'90' is not an architecture"),
        ],
    )
    def test_bad_list(self, text: str, complaint: str) -> None:
        with pytest.raises(BuildError, match=complaint):
            arch_list({"TORCH_CUDA_ARCH_LIST": text}, (13, 0))

    def test_flags(self) -> None:
        assert gencode_flags(["8.0", "9.0a", "12.0+PTX"]) == [
            "-gencode=arch=compute_80,code=sm_80",
            "-gencode=arch=compute_90a,code=sm_90a",
            "-gencode=arch=compute_120,code=[sm_120,compute_120]",
        ]
        assert device_archs(["8.0", "9.0a", "12.0+PTX"]) == ["sm_80", "sm_90a", "sm_120"]

    @pytest.mark.parametrize(
        ("archs", "with_tma", "with_wgmma"),
        [
            (["8.0", "8.6", "9.0a", "10.0", "12.0+PTX"], ["9.0a", "10.0", "12.0+PTX"], ["9.0a"]),
            (["9.0", "10.3f", "8.0+PTX"], ["9.0", "10.3f"], ["8.0"]),
            (["9.0a+PTX"], ["9.0a+PTX"], ["9.0a"]),
            (["8.6+PTX"], ["8.0"], ["8.0"]),
        ],
    )
    def test_some_kernels_are_for_some(
        self, archs: list[str], with_tma: list[str], with_wgmma: list[str]
    ) -> None:
        assert tensor_memory_archs(archs) == with_tma
        assert warpgroup_archs(archs) == with_wgmma

    def test_every_default_is_an_accepted_entry(self) -> None:
        versions = itertools.product([12, 13], range(10))
        for version, machine in itertools.product(versions, ["x86_64", "aarch64"]):
            archs = default_archs(version, machine)
            assert arch_list({"TORCH_CUDA_ARCH_LIST": ";".join(archs)}, version) == archs
