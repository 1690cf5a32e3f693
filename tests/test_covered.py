from __future__ import annotations

import json
from pathlib import Path

import pytest

from covered import main
from error_list import sites

FULL = {"covered_lines": 9, "num_statements": 9, "covered_branches": 9, "num_branches": 9}


@pytest.mark.parametrize(
    ("lines", "branches", "percent", "code"),
    [(95, 18, "90", 0), (95, 18, "90.1", 1), (89, 20, "90", 1), (100, 20, "100", 0)],
)
def test_lines_and_branches_are_held_apart(
    lines: int,
    branches: int,
    percent: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr("covered.never_raised", lambda executed: [])
    counts = {"covered_lines": lines, "num_statements": 100, "covered_branches": branches, "num_branches": 20}
    bare = {"covered_lines": 0, "num_statements": 0, "covered_branches": 0, "num_branches": 0}
    files = {"a.py": {"summary": bare}, "b.py": {"summary": counts}}
    (tmp_path / "coverage.json").write_text(json.dumps({"totals": counts, "files": files}))
    assert main(str(tmp_path / "coverage.json"), percent) == code
    first, second, whole = capsys.readouterr().out.splitlines()
    least = ["b.py", f"{lines:.1f}"] if lines < 100 else ["a.py", "100.0"]
    assert first.split()[:2] == least and second
    assert whole.startswith(f"in all {lines:.2f} % of lines and {5 * branches:.2f} % of branches")


def test_an_error_that_is_never_raised_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Every place is come to but those of two files: one of which no line ran, one of which its errors did not."""
    gone = ("cli/loading.py", "reading.py")
    files = {
        f"src/segpatch/{site.file}": {"summary": FULL, "executed_lines": list(range(1, 999))}
        for site in sites()
        if site.file != gone[0]
    }
    files[f"src/segpatch/{gone[1]}"]["executed_lines"] = [1]
    report = tmp_path / "coverage.json"
    report.write_text(json.dumps({"totals": FULL, "files": files}))
    assert main(str(report), "92") == 1
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no test raises ")]
    assert len(said) == sum(site.file in gone for site in sites()) > 4
    assert any(line.endswith("give --victim, or --victims FILE") for line in said)
    files |= {f"src/segpatch/{name}": {"summary": FULL, "executed_lines": list(range(1, 999))} for name in gone}
    report.write_text(json.dumps({"totals": FULL, "files": files}))
    assert main(str(report), "92") == 0
