"""Drops beyond controls, over seeds, against the matrix's own figures and a slow loop."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from segpatch.report.excess import Drops, excesses, trainings
from segpatch.report.record import Study
from segpatch.results import TransferResult, read_transfer
from segpatch.statistics import interval
from test_report import write_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run") / "matrix")


@pytest.fixture(scope="module")
def result(run: Path) -> TransferResult:
    return read_transfer(run)


def test_drops_are_those_of_the_matrix(run: Path, result: TransferResult):
    drops = Drops(run, result)
    for cell in result.cells:
        found = drops.of(cell.patch, cell.victim)
        assert found.value == pytest.approx(cell.miou_drop)
        if cell.patch != "none":
            assert interval(found.resampled) == pytest.approx(cell.ci95)


def test_beyond_random_is_the_mean_over_seeds_of_what_the_matrix_says(run: Path, result: TransferResult):
    found = {(one.patch, one.victim): one for one in excesses(Study(run.parent, {}, {"matrix": result}))}
    cells = {(cell.patch, cell.victim): cell for cell in result.cells}
    assert len(found) == len(trainings(result)) * len(result.victims)
    for (trained_on, preset), patches in trainings(result).items():
        for victim in result.victims:
            one = found["+".join(trained_on) + f"/{preset}", victim.name]
            over = [cells[patch.name, victim.name].over_random for patch in patches]
            wanted = [judged.drop for judged in over if judged and judged.drop is not None]
            assert one.own == (victim.name in trained_on) and one.network == victim.network
            if one.over_random:
                assert one.over_random.value == pytest.approx(sum(wanted) / len(wanted))
                controls = [p for p in result.patches if p.kind not in ("none", "trained")]
                most = max(cells[p.name, victim.name].miou_drop or 0.0 for p in controls)
                drops = [cells[patch.name, victim.name].miou_drop or 0.0 for patch in patches]
                assert one.over_strongest and one.over_strongest.value == pytest.approx(
                    sum(drops) / len(drops) - most
                )


def test_the_share_that_a_patch_takes(run: Path, result: TransferResult):
    drops, patch = Drops(run, result), next(p for p in result.patches if p.kind == "trained")
    victim = patch.trained_on[0]
    share, cell = (
        drops.share([patch], victim),
        next(c for c in result.cells if (c.patch, c.victim) == (patch.name, victim)),
    )
    assert cell.miou_drop is not None and cell.miou_clean_outside
    assert share.value == pytest.approx(cell.miou_drop / cell.miou_clean_outside)
    assert share.resampled.shape == drops.of(patch.name, victim).resampled.shape
    assert torch.all(share.resampled[~share.resampled.isnan()] <= 1)


def test_a_study_without_the_matrix(tmp_path: Path):
    assert excesses(Study(tmp_path, {}, {})) == []
