#!/usr/bin/env bash
# All that a machine with a GPU is wanted for: build, test, look for errors that only a GPU can make, measure.
# Without network. These must be there: PyTorch and triton; nvcc, ninja, pybind11, setuptools and numpy to build;
# pytest, pytest-timeout (whose setting pytest refuses without it) and hypothesis; compute-sanitizer, for its stages.
#
#   benchmarks/gpu.sh FOLDER [STAGE...]
#
# Stages, each ended after EFFKERNELS_STAGE_SECONDS (480 if not given); without any, all of them in this order:
#   build     installs the package with device code for this GPU
#   tests_cuda, tests_triton   pytest -m gpu: Triton's kernels, and all the rest
#   layers, networks   the report, in bfloat16. Every stage that fills a report goes on, when repeated, where it stopped
#   memcheck, racecheck   compute-sanitizer over small cases of the CUDA kernels
#   expanding expand and depthwise as one kernel against two, at batch 128 and 1
#   growth, memory   the other parts of the report
#   full_b0, full_b4, full_b7, full_b2, full_b5, full_lite0   a network with every contestant, max-autotune with them
#   float16   B0 and B4 once more, in float16: a report of its own
#   memcheck_triton, racecheck_triton   compute-sanitizer over small cases of Triton's kernels, in bfloat16
#   sweep     layers once more with every configuration of Triton's: picks/ says which is the fastest for each shape
#
# FOLDER fills as they go: a log a stage, and the report. The last lines say how each stage ended.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if (($# < 1)); then
  sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
  exit 2
fi
mkdir -p "$1" && out=$(cd "$1" && pwd) || exit 2
shift
(($#)) || set -- build tests_cuda tests_triton layers networks memcheck racecheck expanding growth memory \
  full_b0 full_b4 full_b7 full_b2 full_b5 full_lite0 float16 memcheck_triton racecheck_triton sweep

# Where `python` has no PyTorch and `python3` has, the tools beside the latter.
python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") is None)' ||
  PATH=$(python3 -c 'import os, sys; print(os.path.dirname(sys.executable))'):$PATH

report() {
  python -m benchmarks.report --device cuda --dtype bfloat16 --output "$out/report" --resume "$@"
}

full() { report --suite networks --full --only "efficientnet_$1-"; }

stage_build() {
  local arch
  arch=$(python -c "import torch; print('%d.%d' % torch.cuda.get_device_capability())") || return
  TORCH_CUDA_ARCH_LIST=$arch EFFKERNELS_CUDA=1 pip install --no-build-isolation --no-deps .
}

# tests MINIMUM ARGUMENT...: where less passed, because the device or a module was not found, it fails.
tests() {
  EFFKERNELS_TEST_EXPECT=_C,_C_cuda EFFKERNELS_TEST_MINIMUM=$1 ${tool[@]+"${tool[@]}"} pytest -m gpu -q "${@:2}"
}

# sanitizer TOOL MINIMUM BACKEND TESTS: shapes that take each path, no more. The tool takes ten times as long, or more.
sanitizer() {
  local tool=(compute-sanitizer --tool "$1" --error-exitcode 9 --target-processes all)
  tests "$2" "tests/$3/test_ops.py" -k "$4"
}

stage_tests_cuda() { tests 420 --ignore=tests/backends/triton --durations=10 --junitxml="$out/tests_cuda.xml"; }
stage_tests_triton() { tests 250 tests/backends/triton --durations=10 --junitxml="$out/tests_triton.xml"; }
# Every tensor in memory of its own: what PyTorch cuts out of large pieces can be overrun unseen.
stage_memcheck() { PYTORCH_NO_CUDA_MEMORY_CACHING=1 sanitizer memcheck 175 cuda paths; }
stage_racecheck() { sanitizer racecheck 175 cuda paths; }
stage_memcheck_triton() {
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 sanitizer memcheck 60 triton "paths and bfloat16"
}
stage_racecheck_triton() { sanitizer racecheck 60 triton "paths and bfloat16"; }
stage_layers() { report --suite depthwise --suite pointwise --suite squeeze --suite stem --suite block; }
stage_networks() { report --suite networks; }
stage_growth() { report --suite batch --suite resolution; }
stage_memory() { report --suite memory --suite batch-memory --suite startup --suite host; }
stage_expanding() { python -m benchmarks.expanding && python -m benchmarks.expanding --batch 1; }
stage_full_b0() { full b0; }
stage_full_b2() { full b2; }
stage_full_b4() { full b4; }
stage_full_b5() { full b5; }
stage_full_b7() { full b7; }
stage_full_lite0() { full lite0; }
stage_float16() { report --suite networks --dtype float16 --output "$out/report-fp16"; }
stage_sweep() {
  EFFKERNELS_BACKEND=triton EFFKERNELS_AUTOTUNE=1 EFFKERNELS_CACHE=$out/picks report \
    --suite pointwise --suite depthwise --full --output "$out/sweep"
}

for stage in "$@"; do
  if ! declare -F "stage_$stage" >/dev/null; then
    echo "no stage $stage" >&2
    exit 2
  fi
done
export -f report full tests sanitizer $(declare -F | sed -n 's/^declare -f \(stage_.*\)/\1/p')
export out
ended=()
for stage in "$@"; do
  start=$SECONDS
  timeout --signal=INT --kill-after=10 "${EFFKERNELS_STAGE_SECONDS:-480}" bash -uo pipefail -c "stage_$stage" \
    >"$out/$stage.log" 2>&1 </dev/null
  ended+=("$stage: exit $?, $((SECONDS - start)) s: $(grep -v '^ *$' "$out/$stage.log" | tail -n 1 | cut -c1-160)")
  echo "${ended[-1]}"
done
printf '\n'
printf '%s\n' "${ended[@]}" | tee "$out/stages.txt"
! printf '%s\n' "${ended[@]}" | grep -qv ': exit 0, '
