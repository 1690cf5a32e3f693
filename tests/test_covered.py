from __future__ import annotations

import json
from pathlib import Path

import pytest

from covered import main


@pytest.mark.parametrize(
    ("lines", "branches", "percent", "code"),
    [(95, 18, "90", 0), (95, 18, "90.1", 1), (89, 20, "90", 1), (100, 20, "100", 0)],
)
def test_lines_and_branches_are_held_apart(
    lines: int, branches: int, percent: str, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    counts = {"covered_lines": lines, "num_statements": 100, "covered_branches": branches, "num_branches": 20}
    bare = {"covered_lines": 0, "num_statements": 0, "covered_branches": 0, "num_branches": 0}
    files = {"a.py": {"summary": bare}, "b.py": {"summary": counts}}
    (tmp_path / "coverage.json").write_text(json.dumps({"totals": counts, "files": files}))
    assert main(str(tmp_path / "coverage.json"), percent) == code
    first, second, whole = capsys.readouterr().out.splitlines()
    least = ["b.py", f"{lines:.1f}"] if lines < 100 else ["a.py", "100.0"]
    assert first.split()[:2] == least and second
    assert whole.startswith(f"in all {lines:.2f} % of lines and {5 * branches:.2f} % of branches")
