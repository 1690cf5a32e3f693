from dataclasses import replace
from pathlib import Path

import pytest
import torch

from segpatch.data import batches
from segpatch.errors import BadInput
from segpatch.evaluation import ROWS, evaluate_all
from segpatch.patch import FULL_RANGE, random_patch
from segpatch.studies.progress import Progress
from segpatch.studies.rows import FOLDER, Measurement, measure_rows
from side_by_side import side_by_side
from tiny import conv_victim, learnable_dataset

PATCHES = [None, random_patch((4, 5), FULL_RANGE, 0)]


@pytest.fixture
def asked(tmp_path: Path) -> Measurement:
    data = learnable_dataset(tmp_path / "data")
    return Measurement(
        [conv_victim(0, name="a"), conv_victim(1, name="b")],
        PATCHES,
        data,
        "train",
        range(len(data.samples("train"))),
        batch_size=1,
        place="drawn",
        seed=3,
        precision="fp32",
        shown=frozenset(data.names("train")[:1]),
        run=tmp_path / "run",
    )


def at_once(asked: Measurement):
    """The same without pieces."""
    data = batches(asked.dataset, asked.split, batch_size=asked.batch_size, indices=asked.indices)
    return evaluate_all(asked.victims, data, asked.patches, place=asked.place, seed=asked.seed)


def must_be_equal(ours, wanted):
    for row, other in zip(ours, wanted, strict=True):
        for scores, same in zip(row, other, strict=True):
            assert scores.names == same.names
            for which in ROWS:
                assert torch.equal(getattr(scores, which), getattr(same, which))


@pytest.mark.parametrize("world", [1, 2, 3, 9])
def test_processes_measure_the_rows_of_one(asked: Measurement, world: int):
    assert len(asked.pieces()) > 1
    for ours, fewest in side_by_side(world, lambda processes: measure_rows(asked, processes=processes)):
        must_be_equal(ours, at_once(asked))
        assert fewest == 1
    assert len(list((asked.run / "scenes").rglob("*.png"))) == 5, "labels, and clean and patched on each network"


def test_what_is_measured_is_not_measured_again(asked: Measurement):
    shown: list[Progress] = []
    measure_rows(asked, on_progress=shown.append)
    assert [one.done for one in shown] == [piece.stop for piece in asked.pieces()]
    files = sorted((asked.run / FOLDER).iterdir())
    kept = {file: file.stat().st_mtime_ns for file in files[1:]}
    files[0].unlink()
    must_be_equal(measure_rows(asked)[0], at_once(asked))
    assert files[0].exists() and kept == {file: file.stat().st_mtime_ns for file in files[1:]}


def test_pieces_are_batches_and_enough_to_share(asked: Measurement):
    for images, batch, wanted in ((500, 4, 16), (78, 4, 4), (500, 1, 4), (3, 4, 3), (64, 1, 4), (63, 1, 3)):
        pieces = replace(asked, indices=range(images), batch_size=batch).pieces()
        assert [at for piece in pieces for at in piece] == list(range(images)) and len(pieces[0]) == wanted


def test_rows_of_other_images_are_not_taken_for_these(asked: Measurement):
    measure_rows(asked)
    with pytest.raises(BadInput, match=r"damaged \(it is of other images\)"):
        measure_rows(replace(asked, indices=asked.indices[::-1]))


@pytest.mark.parametrize("content", [b"", b"nonsense", None])
def test_a_damaged_piece_is_one_line(asked: Measurement, content: bytes | None):
    measure_rows(asked)
    first = sorted((asked.run / FOLDER).iterdir())[0]
    first.write_bytes(first.read_bytes()[:-8] if content is None else content)
    with pytest.raises(
        BadInput, match=r"0000000.safetensors is damaged \(.*\); remove it, and go on with --resume"
    ):
        measure_rows(asked)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning:ray")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_pieces_side_by_side_on_ray(asked: Measurement, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    shown: list[Progress] = []
    ours, _ = measure_rows(asked, ray="local", on_progress=shown.append)
    must_be_equal(ours, at_once(asked))
    assert [one.done for one in shown] == [piece.stop for piece in asked.pieces()]


def test_no_image_at_all_is_refused_by_all(asked: Measurement):
    none = replace(asked, indices=[])
    out = side_by_side(2, lambda processes: measure_rows(none, processes=processes))
    assert all(isinstance(one, BadInput) and "no image to measure" in str(one) for one in out)
