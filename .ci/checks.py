"""Helpers of .ci/run.

checks.py readme N       print the Nth command of the README's section "Two commands"
checks.py demo FILE      check that the output of `effkernels demo --json` names the cat and the coffee
checks.py count FILE...  print the numbers of tests in these logs of pytest: "PASSED FAILED"
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

SECTION = "## Two commands"
CATS = {"tabby", "tiger cat", "Persian cat", "Siamese cat", "Egyptian cat"}
COUNTS = re.compile(r"(\d+) (passed|failed|errors?)\b")


def readme_command(text: str, number: int) -> str:
    """The bash block with this number, from 1, of the section."""
    section = text.split(f"\n{SECTION}\n", 1)[1].split("\n## ", 1)[0]
    blocks = re.findall(r"^```bash\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
    command: str = blocks[number - 1]
    return command.strip()


def check_demo(said: dict[str, list[dict[str, object]]]) -> str | None:
    """Why the most likely classes of the two sample pictures are wrong; None if they are right."""
    first = [json.dumps(picture["top"][0]) for picture in said["pictures"]]  # type: ignore[index]
    if not any(cat in first[0] for cat in CATS):
        return f"the cat picture is {first[0]}"
    if "espresso" not in first[1]:
        return f"the coffee picture is {first[1]}"
    return None


def count(logs: Sequence[str]) -> tuple[int, int]:
    """Numbers of passed and failed tests, from the last line of pytest in each log."""
    passed = failed = 0
    for log in logs:
        closing = [line for line in log.splitlines() if re.match(r"^=+ .* in [\d.]+s", line)]
        for number, kind in COUNTS.findall(closing[-1]) if closing else []:
            if kind == "passed":
                passed += int(number)
            else:
                failed += int(number)
    return passed, failed


def main(arguments: list[str]) -> int:
    match arguments:
        case ["readme", number]:
            print(readme_command(Path("README.md").read_text(), int(number)))
        case ["demo", file]:
            problem = check_demo(json.loads(Path(file).read_text()))
            if problem is not None:
                print(f"effkernels demo: {problem}")
                return 1
        case ["count", *files]:
            print(*count([Path(file).read_text(errors="replace") for file in files]))
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
