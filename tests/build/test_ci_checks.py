"""What .ci/run reads from the README, the demo's output and pytest's logs."""

from __future__ import annotations

import importlib.util

from source_tree import ROOT


def test_what_ci_reads() -> None:
    spec = importlib.util.spec_from_file_location("ci_checks", ROOT / ".ci" / "checks.py")
    assert spec is not None
    assert spec.loader is not None
    checks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checks)

    readme = (ROOT / "README.md").read_text()
    assert checks.readme_command(readme, 1) == (
        'pip install torch && pip install ".[demo]" && effkernels demo'
    )
    assert (
        checks.readme_command(readme, 2)
        == 'pip install ".[test,oracles]" && pytest -n 2 --dist loadfile'
    )

    pictures = [{"top": [{"name": "tow truck"}]}, {"top": [{"name": "espresso"}]}]
    assert "cat picture" in checks.check_demo({"pictures": pictures})

    logs = [
        "== 3 failed in 4.20s ==\n===== 7 passed, 2 errors, 9 deselected in 61.00s (0:01:01) =====",
        "no tests here: 5 failed in my head",
    ]
    assert checks.count(logs) == (7, 2)
