"""Reports: written completely, read back, compared, and shown with what is missing."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import readme
from benchmarks.cases import catalogue
from benchmarks.report import plots, tables
from benchmarks.report.compare import comparison, moves
from benchmarks.report.results import Outcome, Report, Row
from benchmarks.run import begin, render

MakeReport = Callable[..., Report]


def test_a_report_reads_back_as_it_was_written(
    tmp_path: Path, network_row: Row, make_report: MakeReport
) -> None:
    path = tmp_path / "new" / "report.json"
    report = make_report(network_row)
    report.save(path)
    assert Report.load(path) == report
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99, "rows": []}'])
def test_files_with_another_schema_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"report\.json"):
        Report.load(path)


def test_a_row_knows_its_ratios(network_row: Row) -> None:
    best = network_row.best("eager")
    assert best is not None
    assert best.contestant == "eager-NCHW"
    ratio = network_row.speedup(best)
    assert ratio is not None
    assert ratio.median == pytest.approx(4.0)
    ours = network_row.outcome("effkernels")
    assert ours is not None
    assert network_row.share_of_bound(ours) == pytest.approx(0.5)
    missing = network_row.outcome("openvino")
    assert missing is not None
    assert network_row.speedup(missing) is None
    assert network_row.best("openvino") is None


def test_tables_name_the_missing_and_show_mismatches_instead_of_times(
    network_row: Row, make_report: MakeReport
) -> None:
    mismatch = network_row.outcome("compile")
    assert mismatch is not None
    mismatch.rounds = [0.001]  # even if there were a time
    text = tables.markdown(make_report(network_row))
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line[:1] == "|"}
    assert "missing**: openvino does not import" in lines["openvino"]
    assert "mismatch**: error 1.00e+00" in lines["compile"]
    assert not any(unit in lines["compile"] for unit in (" ms", " us"))
    assert "2.00x" in lines["onnxruntime"]
    assert "cuda: not built: no nvcc" in text
    assert "openvino missing" in text


def test_tables_say_what_makes_a_row_doubtful(network_row: Row) -> None:
    network_row.outcomes[1].awake = 0.5
    said = "\n".join(tables.disturbances([network_row]))
    assert "onnxruntime used 50% of a core while others were measured" in said
    assert "other programs" not in said
    assert "plain PyTorch" not in said
    network_row.foreign = 0.9
    network_row.outcomes[0].details["backends"] = ["torch"]
    said = "\n".join(tables.disturbances([network_row]))
    assert "other programs used 90% of a core while B0@224, batch 1 was measured" in said
    assert "effkernels ran only on plain PyTorch" in said


@pytest.mark.parametrize(
    ("seconds", "shown"), [(2.5, "2.50 s"), (0.0123, "12.3 ms"), (1.5e-4, "150 us")]
)
def test_durations(seconds: float, shown: str) -> None:
    assert tables.duration(seconds) == shown


def test_comparing_shows_what_moved_by_more_than_its_spread(
    network_row: Row, make_report: MakeReport
) -> None:
    old, new = make_report(network_row), make_report(copy.deepcopy(network_row))
    ours, onnx, vino = new.rows[0].outcomes[:3]
    ours.rounds = [0.0010, 0.0010, 0.0010]
    network_row.outcomes[0].rounds = [0.0020, 0.0021, 0.0020]
    onnx.rounds = [0.0045, 0.0085, 0.0045]  # within its quartiles
    vino.status, vino.rounds = "ok", [0.003]
    moved = {move.contestant: move for move in moves(old, new) if move.moved}
    assert set(moved) == {"effkernels", "openvino"}
    assert moved["effkernels"].change == pytest.approx(0.5)
    text = comparison(old, new)
    assert "| effkernels | 2.00 ms | 1.00 ms | 0.50 |" in text
    assert "| openvino | missing | 3.00 ms |" in text
    assert "2 of 5 moved" in text


def test_a_report_compared_with_itself_has_not_moved(
    network_row: Row, make_report: MakeReport
) -> None:
    report = make_report(network_row)
    assert not any(move.moved for move in moves(report, report))


def test_a_run_is_resumed_only_where_its_rows_belong(
    tmp_path: Path, network_row: Row, make_report: MakeReport
) -> None:
    path = tmp_path / "report.json"
    report = make_report(network_row)
    fresh = begin(path, report.machine, {"full": True}, resume=True)
    assert fresh.rows == []
    report.save(path)
    assert begin(path, report.machine, {"full": False}, resume=True).rows == report.rows
    with pytest.raises(SystemExit, match="--resume"):
        begin(path, report.machine, {"full": False}, resume=False)
    other = {**report.machine, "commit": "another", "threads": 1}
    with pytest.raises(
        SystemExit, match="threads was 2, now 1; commit was 0123456789ab, now another"
    ):
        begin(path, other, {"full": False}, resume=True)
    other = copy.deepcopy(report.machine)
    other["effkernels"]["environment"] = {"EFFKERNELS_BACKEND": "torch"}
    other["versions"]["torch"] = "2.16"
    with pytest.raises(SystemExit) as refused:
        begin(path, other, {"type": "float16"}, resume=True)
    assert str(refused.value) == (
        f"{path} cannot be resumed: versions.torch was 2.15, now 2.16; "
        "effkernels.environment was None, now {'EFFKERNELS_BACKEND': 'torch'}; "
        "type was None, now float16"
    )


def stored_rows(network_row: Row) -> list[Row]:
    """One row of every suite."""
    rows = []
    for suite in catalogue():
        row = copy.deepcopy(network_row)
        row.suite = suite
        row.outcomes[0].peak_bytes, row.outcomes[3].peak_bytes = 50_000_000, 120_000_000
        rows.append(row)
    return rows


def test_a_report_is_drawn(tmp_path: Path, network_row: Row, make_report: MakeReport) -> None:
    report = make_report(*stored_rows(network_row))
    names = {path.name for path in plots.draw(report, tmp_path)}
    layers = ("depthwise", "pointwise", "squeeze", "blocks")
    assert names == {
        f"{n}.png" for n in ("networks", *layers, "batch", "resolution", "memory", "bound")
    }
    assert all((tmp_path / name).stat().st_size > 5000 for name in names)


def test_a_report_without_a_time_of_ours_is_drawn(
    tmp_path: Path, network_row: Row, make_report: MakeReport
) -> None:
    rows = stored_rows(network_row)
    for row in rows:
        row.outcomes[0].status, row.outcomes[0].rounds = "mismatch", []
        row.outcomes[0].peak_bytes = None
    names = {path.stem for path in plots.draw(make_report(*rows), tmp_path)}
    assert "networks" in names
    assert "bound" not in names


def test_memory_says_how_it_was_measured(network_row: Row) -> None:
    assert "VmHWM" in tables.section("memory", [network_row])
    network_row.case["device"]["kind"] = "cuda"
    text = tables.section("memory", [network_row])
    assert "PyTorch's allocator" in text
    assert "VmHWM" not in text


def test_a_report_is_written_without_matplotlib(
    tmp_path: Path, network_row: Row, make_report: MakeReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    def draw(*_: object) -> None:
        raise ImportError("No module named 'matplotlib'")

    monkeypatch.setattr("benchmarks.run.draw", draw)
    render(make_report(*stored_rows(network_row)), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "No plots: No module named 'matplotlib'" in text
    assert "0.42" in text  # 50 MB of 120 MB


def test_the_readme_shows_the_stored_reports() -> None:
    text = (readme.ROOT / "README.md").read_text()
    assert readme.disagreement(text, readme.stored()) is None
    for name in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        assert (readme.ROOT / name).is_file(), name
    assert "networks.png)" in text


def test_the_readme_is_written_from_reports(network_row: Row, make_report: MakeReport) -> None:
    reports = {"imagined-2-threads": make_report(*stored_rows(network_row))}
    text = f"before\n\n{readme.BEGIN}\nold\n{readme.END}\n\nafter\n"
    new = readme.updated(text, reports)
    assert (
        "| B0@224, batch 1 | 2.00 ms | 4.00 ms (2.00x) | missing | mismatch | 8.00 ms (4.00x) |"
        in new
    )
    assert "benchmarks/results/imagined-2-threads/report.md" in new
    assert "old" not in new
    assert new.startswith("before\n")
    assert new.endswith("after\n")
    assert readme.updated(new, reports) == new
    assert readme.disagreement(new, reports) is None
    assert readme.disagreement(text, reports) is not None
    assert readme.disagreement("no markers", reports) is not None
    assert readme.disagreement("no markers", {}) is None
    with pytest.raises(ValueError, match="lacks the lines"):
        readme.updated("no markers", reports)


def test_the_readme_compares_graphs_with_the_faster_of_ours(
    network_row: Row, make_report: MakeReport
) -> None:
    slow = copy.deepcopy(network_row)
    slow.key = "slow"
    network_row.outcomes += [
        Outcome("effkernels-graph", "effkernels", "ok", rounds=[0.001, 0.002, 0.001]),
        Outcome("eager-graph", "eager, CUDA graph", "ok", rounds=[0.003, 0.006, 0.003]),
    ]
    text = readme.block({"imagined": make_report(network_row, slow)})
    assert "|  | effkernels | effkernels-graph | ONNX Runtime | OpenVINO |" in text
    assert "| B0@224, batch 1 | 2.00 ms | 1.00 ms | 4.00 ms (4.00x) | missing |" in text
    assert text.count("3.00 ms (3.00x)") == 1
    assert "| B0@224, batch 1 | 2.00 ms |  | 4.00 ms (2.00x) |" in text


def test_the_readme_shows_networks_in_16_bits(network_row: Row, make_report: MakeReport) -> None:
    low = copy.deepcopy(network_row)
    low.suite, low.key, low.title = "low-precision", "low", "B0@224, batch 1, bf16"
    text = readme.block({"imagined": make_report(network_row, low)})
    assert "\n| B0@224, batch 1 | 2.00 ms |" in text
    assert "\n| B0@224, batch 1, bf16 | 2.00 ms | 4.00 ms (2.00x) |" in text


def test_details_from_a_gpu_have_columns(network_row: Row) -> None:
    plain = tables.section("networks", [network_row])
    assert "launches" not in plain
    network_row.images = 2
    network_row.outcomes[0].details |= {"launches": 132, "peak_bytes": 12_300_000}
    text = tables.section("networks", [network_row])
    assert "| share of bound | launches per image | peak memory |" in text
    line = next(line for line in text.splitlines() if line.startswith("| effkernels |"))
    assert line.endswith("| 50% | 66.0 | 12.3 MB |")
    assert (
        "4.00x as fast as eager's best (eager-NCHW), 2.00x as fast as the best other (onnxruntime)"
        in text
    )


def test_startup_times_are_shown_step_by_step(network_row: Row) -> None:
    network_row.outcomes[0].details = {"seconds of import torch": 1.5, "seconds of model": 0.25}
    text = tables.section("startup", [network_row])
    assert "| effkernels | 2.00 ms | 1.00x | import torch 1.50 s, model 250 ms |" in text


def test_stored_reports_are_read_by_folder(
    tmp_path: Path, network_row: Row, make_report: MakeReport
) -> None:
    make_report(network_row).save(tmp_path / "machine" / "report.json")
    (tmp_path / "empty").mkdir()
    assert list(readme.stored(tmp_path)) == ["machine"]
    raw = json.loads((tmp_path / "machine" / "report.json").read_text())
    assert raw["schema"] == 1
    assert Outcome(**raw["rows"][0]["outcomes"][0]) == network_row.outcomes[0]
