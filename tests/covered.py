"""Whether the tests run enough lines and branches, and raise every error of docs/errors.md:
`covered.py coverage.json PERCENT`, exit code 1 if not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from error_list import never_raised

LEAST = 10
"""Files that are listed."""


def main(report: str, percent: str) -> int:
    found = json.loads(Path(report).read_text())
    files = {name: shares(file["summary"]) for name, file in found["files"].items()}
    for name, (lines, branches) in sorted(files.items(), key=lambda item: sum(item[1]))[:LEAST]:
        print(f"{name:50} {lines:6.1f} % of lines {branches:6.1f} % of branches")
    lines, branches = shares(found["totals"])
    print(f"in all {lines:.2f} % of lines and {branches:.2f} % of branches; {percent} % of each are asked for")
    missed = never_raised(lambda name: ran(found["files"], name))
    for site in missed:
        print(f"no test raises {site.file}:{site.lines.start} {site.said.text}")
    return int(min(lines, branches) < float(percent) or bool(missed))


def ran(files: dict[str, Any], name: str) -> list[int]:
    """The lines of a file below the package that were run."""
    return next((file["executed_lines"] for path, file in files.items() if path.endswith(f"segpatch/{name}")), [])


def shares(counts: dict[str, Any]) -> tuple[float, float]:
    """Percent of the lines and of the branches that ran; all of none is 100."""
    pairs = ("covered_lines", "num_statements"), ("covered_branches", "num_branches")
    lines, branches = (100 * counts[ran] / counts[whole] if counts[whole] else 100.0 for ran, whole in pairs)
    return lines, branches


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
