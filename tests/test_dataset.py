from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fabricate import write_folder, write_image, write_labels
from segpatch.data import DATASETS, batches, cached, open_data, order
from segpatch.errors import BadInput, Missing
from segpatch.types import IGNORE


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "data", {"train": 5, "val": 2})


def test_batches_keep_order_values_and_names(folder: Path):
    dataset = open_data(f"folder:{folder}")
    found = list(batches(dataset, "train", batch_size=2))
    assert [batch.names for batch in found] == [("train0", "train1"), ("train2", "train3"), ("train4",)]
    image, labels = dataset.read("train", 3)
    assert found[1].images.shape == (2, 3, 4, 6)
    assert found[1].images.dtype == torch.float32
    assert found[1].images.is_contiguous()
    assert found[1].labels.dtype == torch.int64
    assert torch.equal(found[1].images[1], torch.tensor(image).permute(2, 0, 1) / 255)
    assert torch.equal(found[1].labels[1], torch.tensor(labels).long())


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(folder: Path, workers: int):
    dataset = open_data(f"folder:{folder}")
    alone = list(batches(dataset, "train", batch_size=2))
    helped = list(batches(dataset, "train", batch_size=2, workers=workers))
    assert [batch.names for batch in alone] == [batch.names for batch in helped]
    assert all(torch.equal(a.images, b.images) for a, b in zip(alone, helped, strict=True))


def test_workers_stop_with_the_reader(folder: Path):
    stream = batches(open_data(f"folder:{folder}"), "train", batch_size=1, workers=2)
    next(stream)
    stream.close()  # type: ignore[attr-defined]


def test_indices_choose_and_order(folder: Path):
    dataset = open_data(f"folder:{folder}")
    (batch,) = batches(dataset, "train", batch_size=8, indices=[4, 0, 4])
    assert batch.names == ("train4", "train0", "train4")


def test_a_batch_needs_one_size(folder: Path):
    write_image(folder / "images/train/train1.png", height=8)
    write_labels(folder / "labels/train/train1.png", height=8)
    dataset = open_data(f"folder:{folder}")
    with pytest.raises(BadInput, match=r"train1\.png is 8x6 .* began with 4x6"):
        list(batches(dataset, "train", batch_size=2))
    assert len(list(batches(dataset, "train", batch_size=1))) == 5


def test_bad_batch_arguments_are_refused_at_once(folder: Path):
    dataset = open_data(f"folder:{folder}")
    with pytest.raises(BadInput, match="batch_size must be 1 or more and workers 0 or more"):
        batches(dataset, "train", batch_size=0)
    with pytest.raises(Missing, match="no split 'test'; it has: train, val"):
        batches(dataset, "test", batch_size=1)


def test_order_is_a_function_of_seed_and_epoch():
    assert order(3, 1, 50) == order(3, 1, 50)
    assert sorted(order(3, 1, 50)) == list(range(50))
    assert len({order(seed, epoch, 50) for seed in range(3) for epoch in range(3)}) == 9
    assert order(0, 0, 0) == ()


def test_order_shares_no_stream_with_the_draws_of_a_step():
    draws = np.random.default_rng(np.random.SeedSequence([3, 1, 0])).permutation(50)
    assert order(3, 1, 50) != draws.tolist()


def test_a_cache_reads_each_file_once_and_changes_nothing(folder: Path):
    dataset = open_data(f"folder:{folder}")
    kept = cached(dataset)
    before = next(batches(kept, "train", batch_size=5))
    assert kept.fingerprint("train") == dataset.fingerprint("train")
    for path in (folder / "images/train").iterdir():
        path.unlink()
    after = next(batches(kept, "train", batch_size=5))
    assert torch.equal(before.images, after.images)
    with pytest.raises(ValueError, match="read-only"):
        kept.read("train", 0)[0][:] = 0


def test_a_cache_stays_within_its_budget(folder: Path):
    pair = 4 * 6 * (3 + 1)
    kept = cached(open_data(f"folder:{folder}"), budget_bytes=2 * pair)
    for index in range(5):
        kept.read("train", index)
    for path in (folder / "images/train").iterdir():
        path.unlink()
    kept.read("train", 0)
    kept.read("train", 1)
    with pytest.raises(Missing):
        kept.read("train", 2)


def test_a_fingerprint_follows_content_and_not_place(tmp_path: Path):
    here, there = (write_folder(tmp_path / name, {"val": 2}) for name in ("here", "there"))
    one, two = (open_data(f"folder:{root}").fingerprint("val") for root in (here, there))
    assert one == two
    write_labels(there / "labels/val/val1.png", [1, 1, 0])
    assert open_data(f"folder:{there}").fingerprint("val") != one


def test_size_and_groups(folder: Path):
    dataset = open_data(f"folder:{folder}")
    assert dataset.size("val") == (4, 6)
    assert dataset.groups("val") == dataset.names("val") == ("val0", "val1")
    assert dataset.classes.names == ("road", "car")


# What a file may be


def one_image(folder: Path, picture: Image.Image, name: str = "val0.png") -> Path:
    (folder / "images/val/val0.png").unlink()
    path = folder / "images/val" / name
    picture.save(path)
    return path


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK"])
def test_images_of_any_mode_become_rgb(folder: Path, mode: str):
    grey = Image.fromarray(np.full((4, 6, 3), 102, np.uint8))
    one_image(folder, grey.convert(mode), "val0.tif" if mode == "CMYK" else "val0.png")
    image, _ = open_data(f"folder:{folder}").read("val", 0)
    assert image.shape == (4, 6, 3)
    assert (image == 102).all()


def test_sixteen_bits_and_transparency_are_refused(folder: Path):
    path = one_image(folder, Image.fromarray(np.full((4, 6), 700, np.uint16)))
    dataset = open_data(f"folder:{folder}")
    with pytest.raises(BadInput, match=r"val0\.png has more than 8 bits"):
        dataset.read("val", 0)
    Image.new("RGBA", (6, 4), (9, 9, 9, 128)).save(path)
    with pytest.raises(BadInput, match=r"val0\.png has transparent pixels"):
        dataset.read("val", 0)


@pytest.mark.parametrize("place", ["images", "labels"])
@pytest.mark.parametrize("content", [b"", b"not an image", None])
def test_an_unreadable_file_is_named(folder: Path, place: str, content: bytes | None):
    write_image(folder / "images/val/val1.png", height=40, width=60)
    write_labels(folder / "labels/val/val1.png", height=40, width=60)
    path = folder / place / "val/val1.png"
    path.write_bytes(path.read_bytes()[:50] if content is None else content)
    with pytest.raises(BadInput, match=rf"{place}/val/val1\.png cannot be read") as caught:
        open_data(f"folder:{folder}").read("val", 1)
    assert "\n" not in str(caught.value)


def test_sizes_must_agree(folder: Path):
    write_labels(folder / "labels/val/val1.png", height=5)
    with pytest.raises(BadInput, match=r"images/val/val1\.png is 4x6 but its label .*labels/val/val1\.png is 5x6"):
        open_data(f"folder:{folder}").read("val", 1)


def test_label_values_outside_the_classes_are_named(folder: Path):
    write_labels(folder / "labels/val/val1.png", [0, 1, 7, 2, IGNORE])
    with pytest.raises(BadInput, match=r"val1\.png has label values 2, 7; expected only 0-1, 255"):
        open_data(f"folder:{folder}").read("val", 1)


def test_palette_labels_are_read_by_index(folder: Path):
    picture = Image.fromarray(np.resize(np.array([0, 1, 255], np.uint8), (4, 6)))
    picture.putpalette([9, 200, 40] * 256)
    picture.save(folder / "labels/val/val0.png")
    _, labels = open_data(f"folder:{folder}").read("val", 0)
    assert np.unique(labels).tolist() == [0, 1, 255]


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (Image.new("RGB", (6, 4)), "is a RGB picture"),
        (Image.fromarray(np.zeros((4, 6), np.uint16)), "is a I;16 picture"),
        (Image.new("1", (6, 4)), "less than 8 bits"),
    ],
)
def test_labels_that_are_not_class_ids_are_refused(folder: Path, picture: Image.Image, message: str):
    picture.save(folder / "labels/val/val1.png")
    with pytest.raises(BadInput, match=message):
        open_data(f"folder:{folder}").read("val", 1)


# What a split may be


def test_a_split_without_any_label_is_refused(folder: Path):
    for path in (folder / "labels/val").iterdir():
        path.unlink()
    dataset = open_data(f"folder:{folder}")
    with pytest.raises(BadInput, match=r"split 'val' of folder:.* has no label; expected images/SPLIT"):
        batches(dataset, "val", batch_size=1)
    assert len(dataset.samples("train")) == 5
    with pytest.raises(BadInput, match="has no label"):
        open_data(f"folder:{folder}", split="val")


def test_a_split_with_nothing_but_ignored_pixels_is_refused(folder: Path):
    for path in (folder / "labels/val").iterdir():
        write_labels(path, IGNORE)
    with pytest.raises(BadInput, match="no labelled pixel"):
        open_data(f"folder:{folder}").samples("val")


def test_a_half_labelled_split_names_what_is_bare(folder: Path):
    (folder / "labels/train/train3.png").unlink()
    for dataset in (open_data(f"folder:{folder}"), cached(open_data(f"folder:{folder}"))):
        with pytest.raises(BadInput, match=r"1 of 5 images .* the first is .*train3\.png; .*data check"):
            dataset.samples("train")


def test_two_images_of_one_name_are_refused(folder: Path):
    write_image(folder / "images/val/val0.bmp", seed=99)
    with pytest.raises(BadInput, match=r"'val0' twice: .*val0\.bmp and .*val0\.png"):
        open_data(f"folder:{folder}").samples("val")


# What the user types


def test_unknown_kinds_name_the_nearest():
    with pytest.raises(BadInput, match="unknown data set 'citiscapes'; did you mean 'cityscapes'"):
        open_data("citiscapes:/data")


@pytest.mark.parametrize("kind", sorted(DATASETS))
def test_an_absent_folder_is_missing_and_says_what_was_expected(tmp_path: Path, kind: str):
    with pytest.raises(Missing, match=r"expected .*; found nothing of that name; ") as caught:
        open_data(f"{kind}:{tmp_path / 'absent'}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted(set(DATASETS) - {"streets"}))
def test_a_kind_alone_is_refused(kind: str):
    with pytest.raises(BadInput, match="does not say where it is"):
        open_data(kind)


def test_the_measured_split_can_be_chosen(folder: Path):
    assert open_data(f"folder:{folder}").eval_split == "val"
    assert open_data(f"folder:{folder}", split="train").eval_split == "train"
    with pytest.raises(Missing, match="no split 'test'"):
        open_data(f"folder:{folder}", split="test")


def test_only_drawn_streets_take_a_size(folder: Path):
    with pytest.raises(BadInput, match="for streets drawn on the fly"):
        open_data(f"folder:{folder}", height=64)


def test_drawn_streets(monkeypatch: pytest.MonkeyPatch):
    drawn = []

    def draw(seed: int, split: str, index: int, height: int, width: int):
        drawn.append((seed, split, index))
        return np.full((height, width, 3), index, np.uint8), np.full((height, width), index % 19, np.uint8)

    monkeypatch.setattr("segpatch.data.streets.draw_street", draw)
    dataset = open_data("streets", height=16, width=32, seed=4)
    assert (len(dataset.splits["train"]), len(dataset.splits["val"])) == (1000, 100)
    assert dataset.size("val") == (16, 32)
    (batch,) = batches(dataset, "val", batch_size=2, indices=[7, 2])
    assert batch.names == ("streets_000007_000000", "streets_000002_000000")
    assert batch.labels[:, 0, 0].tolist() == [7, 2]
    assert {(4, "val", 7), (4, "val", 2)} < set(drawn)
    assert dataset.fingerprint("val") != open_data("streets", height=16, width=32, seed=5).fingerprint("val")
    with pytest.raises(BadInput, match="a whole number from 16"):
        open_data("streets", height=0)
