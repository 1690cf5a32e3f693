"""The demo on real parts, made short; `make demo` runs it whole."""

from __future__ import annotations

from dataclasses import replace

import pytest

from segpatch.data import open_data
from segpatch.errors import Missing
from segpatch.results import read_transfer
from segpatch.studies import demo


def test_demo_trains_measures_and_writes_the_page(tmp_path, monkeypatch):
    short = replace(
        demo.PLAN,
        presets=("released",),
        overrides={"steps": 2, "batch_size": 1},
        trained=4,
        measured=2,
        pictures=1,
    )
    monkeypatch.setattr(demo, "PLAN", short)
    monkeypatch.setattr(demo, "open_data", lambda spec: open_data(spec, height=128, width=256))
    planned = [name for name, _ in demo.estimate_demo().pieces]
    assert len(planned) == 6 and "bisenetv2/released/s0, 2 steps" in planned
    stages = []
    result = demo.run_demo(tmp_path / "demo", on_progress=lambda progress: stages.append(progress.stage))
    assert read_transfer(tmp_path / "demo") == result
    assert {victim.name for victim in result.victims} == {"pidnet-s", "bisenetv2", "segformer-b0"}
    assert len(result.cells) == 3 * (1 + 3 + 3)  # clean, three controls, three patches
    page = (tmp_path / "demo" / "report" / "index.html").read_text()
    assert all(patch.name in page for patch in result.patches)
    assert [s for s in dict.fromkeys(stages) if s.startswith("attack")] and "measure" in stages
    # A run stopped between its result and its page gets the page when it is resumed, without new work.
    (tmp_path / "demo" / "report" / "index.html").unlink()
    stages.clear()
    assert demo.run_demo(tmp_path / "demo", resume=True, on_progress=lambda p: stages.append(p.stage)) == result
    assert not stages and (tmp_path / "demo" / "report" / "index.html").read_text() == page


def test_without_shipped_networks_it_says_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "shipped", lambda: ())
    with pytest.raises(Missing, match="no network is shipped with this installation; install segpatch from its"):
        demo.run_demo(tmp_path / "demo")
    assert not (tmp_path / "demo").exists()


@pytest.mark.long
def test_whole_demo(tmp_path):
    result = demo.run_demo(tmp_path / "demo")
    own = [cell for cell in result.cells if cell.white_box and "/strong/" in cell.patch]
    assert len(own) == 3
    for cell in own:  # so few steps do not always suffice; then the page says so
        named = [warning for warning in result.warnings if warning.startswith(f"{cell.patch} on {cell.victim}")]
        assert (cell.over_random.ci95[0] > 0) != bool(named), (cell, named)
