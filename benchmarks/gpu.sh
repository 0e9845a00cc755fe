#!/usr/bin/env bash
# Everything that needs a machine with a GPU: build, test, search for errors that only a GPU shows, measure.
# Needs no network. One Python must have PyTorch and triton; pip, ninja, pybind11, setuptools and numpy for the
# build; pytest, pytest-timeout (the configuration has an option of it) and hypothesis. The script uses the first of
# $PYTHON, python and python3 that has PyTorch. It also needs nvcc, and compute-sanitizer for some stages. With
# pytest-xdist the tests run in up to 10 processes (4 minutes on an H100 with 16 cores).
#
#   benchmarks/gpu.sh FOLDER [STAGE...]
#
# The stages; without STAGE all of them run in this order. Each is ended after EFFKERNELS_STAGE_SECONDS (default 480):
#   build     installs the package with device code for this GPU
#   tests_cuda   pytest -m gpu: everything but Triton's kernels
#   profile   times each kernel of B0 and B4 as it is launched: profiles/; the same with expand and depthwise always in
#             two kernels: profiles/two_kernels/
#   layers, networks   the report, in bfloat16. A stage that measures continues, when repeated, where it stopped, and
#             parts/ has a report of each row as soon as it is measured
#   join      joins the parts that the bfloat16 stages have written so far into report/; once more at the end
#   tests_triton   pytest -m gpu: Triton's kernels
#   memcheck, racecheck   compute-sanitizer over small cases of the CUDA kernels
#   growth, memory   the other parts of the report
#   full_b0, full_b4, full_b7, full_b2, full_b5, full_lite0   a network with every contestant, including max-autotune
#   float16   B0 and B4 again in float16, as a separate report
#   memcheck_triton, racecheck_triton   compute-sanitizer over small cases of Triton's kernels, in bfloat16
#   sweep     layers again with every configuration of Triton's kernels: picks/ says which is fastest for each shape
#
# Where a machine is there for ten minutes at a time: `build tests_cuda profile layers` first, then, with the same
# FOLDER, `build layers networks join` until both say that everything was measured before.
#
# The stages write to FOLDER: a log each, their measurements in parts/, and the report. The last lines printed say how
# each stage ended. No two stages write the same file, so once the package is built, two of these commands with different
# stages may run at the same time in the same FOLDER: tests beside sanitizers, but measurements alone.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if (($# < 1)); then
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
fi
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
shift
(($#)) || set -- build tests_cuda profile layers networks join tests_triton memcheck racecheck growth memory \
  full_b0 full_b4 full_b7 full_b2 full_b5 full_lite0 float16 memcheck_triton racecheck_triton sweep join

# pip and pytest on the PATH may belong to another Python, so everything is started by the one that has PyTorch.
for python in "${PYTHON:-}" python python3 ""; do
  [[ -n $python ]] && "$python" -c 'import torch' 2>/dev/null && break
done
if [[ -z $python ]]; then
  echo "no PyTorch in PYTHON=${PYTHON:-}, python or python3" >&2
  exit 2
fi
"$python" -c 'import sys, torch; print(f"{sys.executable}: Python {sys.version.split()[0]}, torch {torch.__version__}")'

# report FOLDER ARGUMENT...
report() {
  "$python" -m benchmarks.report --device cuda --dtype bfloat16 --output "$out/$1" --resume "${@:2}"
}

full() { report "parts/full_$1" --suite networks --full --only "efficientnet_$1-"; }

stage_build() {
  local arch
  arch=$("$python" -c "import torch; print('%d.%d' % torch.cuda.get_device_capability())") || return
  [[ $arch == 9.0 ]] && arch=9.0a # the one with wgmma
  TORCH_CUDA_ARCH_LIST=$arch EFFKERNELS_CUDA=1 "$python" -m pip install --no-build-isolation --no-deps .
}

# tests MINIMUM ARGUMENT...: fails if fewer tests pass, for instance because the device or a module was not found.
# `-m pytest` would put this folder, which has the package without its compiled modules, before the installed one.
tests() {
  EFFKERNELS_TEST_EXPECT=_C,_C_cuda EFFKERNELS_TEST_MINIMUM=$1 ${tool[@]+"${tool[@]}"} "$python" -c '
import sys
sys.path[:] = [folder for folder in sys.path if folder]
import pytest
sys.exit(pytest.main())' -m gpu -q -p no:cacheprovider "${@:2}"
}

# parallel MINIMUM ARGUMENT...: the same in several processes; one of them runs all tests that take much memory
parallel() {
  local processes=()
  if "$python" -c 'import xdist' 2>/dev/null; then
    processes=(-n "$(($(nproc) < 10 ? $(nproc) : 10))" --dist loadgroup)
  fi
  tests "$@" ${processes[@]+"${processes[@]}"}
}

# sanitizer TOOL MINIMUM BACKEND TESTS: only shapes that take each path, because tests take ten times as long or more.
sanitizer() {
  local tool=(compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all)
  tests "$2" "tests/backends/$3" -k "$4"
}

stage_tests_cuda() { parallel 420 --ignore=tests/backends/triton --durations=10 --junitxml="$out/tests_cuda.xml"; }
stage_tests_triton() { parallel 250 tests/backends/triton --durations=10 --junitxml="$out/tests_triton.xml"; }
# Allocates every tensor separately: overruns between tensors within one of PyTorch's large blocks would not be seen.
stage_memcheck() { PYTORCH_NO_CUDA_MEMORY_CACHING=1 sanitizer memcheck 175 cuda paths; }
stage_racecheck() { sanitizer racecheck 175 cuda paths; }
stage_memcheck_triton() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 sanitizer memcheck 60 triton "paths and bfloat16"
}
stage_racecheck_triton() { sanitizer racecheck 60 triton "paths and bfloat16"; }
stage_profile() {
  "$python" -m benchmarks.profiles "$out/profiles" &&
    EFFKERNELS_EXPAND_DEPTHWISE=two "$python" -m benchmarks.profiles "$out/profiles/two_kernels"
}
stage_layers() { report parts/layers --suite depthwise --suite pointwise --suite squeeze --suite stem --suite block; }
stage_networks() { report parts/networks --suite networks; }
stage_growth() { report parts/growth --suite batch --suite resolution; }
stage_memory() { report parts/memory --suite memory --suite batch-memory --suite startup --suite host; }
stage_full_b0() { full b0; }
stage_full_b2() { full b2; }
stage_full_b4() { full b4; }
stage_full_b5() { full b5; }
stage_full_b7() { full b7; }
stage_full_lite0() { full lite0; }
stage_float16() { report report-fp16 --suite networks --dtype float16; }
stage_sweep() {
  EFFKERNELS_BACKEND=triton EFFKERNELS_AUTOTUNE=1 EFFKERNELS_CACHE=$out/picks report sweep \
    --suite pointwise --suite depthwise --full
}
stage_join() { "$python" -m benchmarks.join "$out/report" "$out"/parts/*/report.json; }

for stage in "$@"; do
  if ! declare -F "stage_$stage" >/dev/null; then
    echo "no stage is called $stage" >&2
    exit 2
  fi
done
export -f report full tests parallel sanitizer $(declare -F | sed -n 's/^declare -f \(stage_.*\)/\1/p')
export out python
ended=()
for stage in "$@"; do
  start=$SECONDS
  timeout --signal=INT --kill-after=10 "${EFFKERNELS_STAGE_SECONDS:-480}" bash -uo pipefail -c "stage_$stage" \
    >"$out/$stage.log" 2>&1 </dev/null
  ended+=("$stage: exit $?, $((SECONDS - start)) s: $(grep -v '^ *$' "$out/$stage.log" | tail -n 1 | cut -c1-160)")
  echo "${ended[-1]}"
done
printf '\n'
printf '%s\n' "${ended[@]}"
! printf '%s\n' "${ended[@]}" | grep -qv ': exit 0, '
