from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from reference import LAW, miou_loop
from segpatch.errors import BadInput
from segpatch.evaluation import Picture, evaluate_all
from segpatch.locality import (
    EDGES,
    Estimate,
    Locality,
    LocalityCounter,
    bin_drops,
    bin_flips,
    class_distance,
    distances,
    flip_rate,
    reach,
)
from segpatch.metrics import pixel_accuracy
from segpatch.patch import FULL_RANGE, Patch, random_patch, random_pixels
from segpatch.statistics import interval, resample_counts
from segpatch.types import IGNORE, Region
from tiny import conv_victim, in_batches, pictures

ROWS = ("confusion_clean", "confusion_patched", "flips", "gains", "right", "distance")
SQRT2, SQRT5, SQRT8 = math.sqrt(2), math.sqrt(5), math.sqrt(8)
ONCE = torch.ones(3, 1, dtype=torch.float64)
REGIONS = st.tuples(st.integers(0, 5), st.integers(0, 8), st.integers(1, 4), st.integers(1, 4)).map(
    lambda at: Region(*at)
)


def picture(
    labels: Tensor, clean: Tensor, patched: Tensor, region: Region, *, image: str = "a", patch: str = "trained"
) -> Picture:
    return Picture(image, patch, "net", labels.byte(), clean.byte(), patched.byte(), region)


def random_picture(seed: int, region: Region, *, size: tuple[int, int] = (9, 12), **names: str) -> Picture:
    """Three classes, a tenth of the pixels without truth, and two predictions that are often right."""
    generator = torch.Generator().manual_seed(seed)
    labels, other, third = (torch.randint(3, size, generator=generator) for _ in range(3))
    clean_hit, patched_hit, ignored = (torch.rand(size, generator=generator) for _ in range(3))
    clean, patched = torch.where(clean_hit < 0.8, labels, other), torch.where(patched_hit < 0.5, labels, third)
    return picture(torch.where(ignored < 0.1, IGNORE, labels), clean, patched, region, **names)


def locality(*shown: Picture, classes: int = 3, edges: tuple[float, ...] = EDGES) -> Locality:
    counter = LocalityCounter(classes, edges)
    for one in shown:
        counter.add(one)
    return counter.of(shown[0].patch, shown[0].victim)


def some_images(patch: str, seed: int = 0, count: int = 6) -> Locality:
    """Random images of several sizes. All patches have the labels of the seed; their predictions differ."""
    shown = []
    for i in range(count):
        own = random_picture(
            seed + i, Region(3, 4, 2, 2), size=(9 + i, 12 + 2 * i), image=f"image{i}", patch=patch
        )
        if patch != "trained":
            hit = torch.rand(own.labels.shape, generator=torch.Generator().manual_seed(100 + i)) < 0.7
            own = own._replace(patched=torch.where(hit, own.clean, own.patched))
        shown.append(own)
    return locality(*shown)


def five_by_six() -> Picture:
    """A 2x2 patch at (1, 2); class 0 left, 1 right; near the patch two pixels turn wrong, far from it one turns
    wrong and one right."""
    labels = (torch.arange(6) >= 3).long().expand(5, 6).clone()
    clean, patched = labels.clone(), labels.clone()
    labels[4, 5] = IGNORE
    clean[0, 0] = 1  # mended by the patch
    for row, column in [(0, 2), (1, 4), (4, 4), (1, 2), (4, 5)]:  # the last two: under the patch, no truth
        patched[row, column] = 1 - patched[row, column]
    return picture(labels, clean, patched, Region(1, 2, 2, 2))


def damaged(where: Callable[[Tensor], Tensor]) -> Picture:
    """A prediction without fault that turns wrong at some distances from a 2x2 patch."""
    labels, region = torch.zeros(30, 40), Region(20, 10, 2, 2)
    return picture(labels, labels, where(distances(30, 40, region)), region)


def assert_undefined(estimate: Estimate) -> None:
    assert math.isnan(estimate.value) and all(map(math.isnan, estimate.ci95)) and estimate.undefined == 1


def test_distances_by_hand():
    wanted = [
        [SQRT5, SQRT2, 1, 1, SQRT2, SQRT5],
        [2, 1, 0, 0, 1, 2],
        [2, 1, 0, 0, 1, 2],
        [SQRT5, SQRT2, 1, 1, SQRT2, SQRT5],
        [SQRT8, SQRT5, 2, 2, SQRT5, SQRT8],
    ]
    assert_close(distances(5, 6, Region(1, 2, 2, 2)), torch.tensor(wanted, dtype=torch.float64))


@LAW
@given(REGIONS)
def test_distances_are_to_the_nearest_pixel_of_the_region(region):
    top, left, height, width = region
    inside = [(y, x) for y in range(top, top + height) for x in range(left, left + width)]
    for y, row in enumerate(distances(9, 12, region).tolist()):
        for x, away in enumerate(row):
            assert away == min(math.sqrt((y - v) ** 2 + (x - u) ** 2) for v, u in inside)


def test_rows_by_hand():
    rows = locality(five_by_six(), classes=2, edges=(0.5, 1.0))
    assert (rows.patch, rows.victim, rows.names, rows.edges, rows.side) == (
        "trained",
        "net",
        ("a",),
        (0.5, 1.0),
        2,
    )
    assert rows.confusion_clean.tolist() == [[[[4, 0], [0, 4]], [[5, 0], [0, 5]], [[3, 1], [0, 3]]]]
    assert rows.confusion_patched.tolist() == [[[[3, 1], [1, 3]], [[5, 0], [0, 5]], [[4, 0], [1, 2]]]]
    assert rows.flips.tolist() == [[0, 2, 0, 1, 0, 0, 0, 0, 0]]
    assert rows.gains.tolist() == [[0, 0, 0, 1, 0, 0, 0, 0, 0]]
    assert rows.right.tolist() == [[0, 8, 10, 6, 0, 0, 0, 0, 0]]
    both = 4 + 2 * SQRT2 + 6 + 3 * SQRT5
    assert_close(rows.distance, torch.tensor([[both + SQRT8, both]], dtype=torch.float64))
    assert {getattr(rows, row).dtype for row in ROWS[:5]} == {torch.int32}


def test_scores_by_hand():
    rows = locality(five_by_six(), classes=2, edges=(0.5, 1.0))
    near, middle, far = bin_drops(rows, None, ONCE, least=1)
    assert [one.upper for one in (near, middle, far)] == [0.5, 1.0, math.inf]
    assert [one.pixels for one in (near, middle, far)] == [8, 10, 7]
    assert near.pixel_accuracy.value == pytest.approx(1 / 4) and near.miou.value == pytest.approx(1 - 3 / 5)
    assert middle.pixel_accuracy.value == 0 and middle.miou.value == 0
    assert far.pixel_accuracy.value == 0
    assert far.miou.value == pytest.approx(3 / 4 - (4 / 5 + 2 / 3) / 2)
    assert far.miou.ci95 == pytest.approx((far.miou.value,) * 2)

    radii = reach(rows, None, ONCE)
    assert (radii.r50.value, radii.r90.value, radii.r50_widths.value, radii.r90_widths.value) == (1, 3, 0.5, 1.5)
    assert radii.remote.value == 0
    assert flip_rate(rows, None, ONCE) == Estimate(3 / 24, (3 / 24, 3 / 24), 0)

    damage = class_distance(rows, None, ONCE, least=1)
    assert damage.share.tolist() == pytest.approx([13 / 25, 12 / 25])
    assert damage.distance.tolist() == pytest.approx([22.3651 / 13, 19.5366 / 12], abs=1e-4)
    assert [one.value for one in damage.drop] == pytest.approx([12 / 13 - 12 / 15, 12 / 13 - 10 / 13])
    assert (damage.rho_share.value, damage.rho_distance.value) == (-1, -1)


def test_the_control_is_subtracted_by_hand():
    shown = five_by_six()
    patched = shown.clean.clone()
    patched[0, 2] = 1
    trained = locality(shown, classes=2, edges=(0.5, 1.0))
    control = locality(shown._replace(patched=patched, patch="random"), classes=2, edges=(0.5, 1.0))
    assert flip_rate(trained, control, ONCE).value == pytest.approx(2 / 24)
    near, _, far = bin_drops(trained, control, ONCE, least=1)
    assert near.pixel_accuracy.value == pytest.approx(1 / 4 - 1 / 8)
    assert near.miou.value == pytest.approx((1 - 3 / 5) - (1 - (3 / 4 + 4 / 5) / 2))
    assert far.miou.value == pytest.approx(3 / 4 - (4 / 5 + 2 / 3) / 2)
    shares = bin_flips(trained, control, ONCE)
    assert [(one.upper, one.right) for one in shares] == [(0.5, 8), (1.0, 10), (math.inf, 6)]
    assert [(one.patched.value, one.control.value) for one in shares] == [(2 / 8, 1 / 8), (0, 0), (1 / 6, 0)]
    assert [one.over_control.value for one in shares] == pytest.approx([1 / 8, 0, 1 / 6])
    assert shares[0].over_control.ci95 == pytest.approx((1 / 8, 1 / 8))
    assert_undefined(bin_flips(replace(trained, right=trained.right * 0), control, ONCE)[1].patched)
    radii = reach(trained, control, ONCE)  # of its two pixels left over, one is at 1 px and one at sqrt 5
    assert (radii.r50.value, radii.r90.value) == (1, 3)
    assert class_distance(trained, control, ONCE, least=1).drop[1].value == pytest.approx(12 / 14 - 10 / 13)


@pytest.mark.parametrize(
    "region", [Region(3, 4, 2, 2), Region(0, 0, 1, 3), Region(5, 7, 4, 5), Region(8, 0, 1, 12)]
)
def test_rows_are_the_loop(region):
    shown = random_picture(0, region)
    rows = locality(shown)
    away, side = distances(9, 12, region), math.sqrt(region.height * region.width)
    wanted = {row: torch.zeros_like(getattr(rows, row)[0]) for row in ROWS}
    for y in range(9):
        for x in range(12):
            truth, clean, patched, d = (
                int(m[y, x]) for m in (shown.labels, shown.clean, shown.patched, away.ceil())
            )
            under = region.top <= y < region.top + region.height and region.left <= x < region.left + region.width
            if truth == IGNORE or under:
                continue
            near = sum(float(away[y, x]) > edge * side for edge in EDGES)
            wanted["confusion_clean"][near, truth, clean] += 1
            wanted["confusion_patched"][near, truth, patched] += 1
            wanted["flips"][d] += clean == truth != patched
            wanted["gains"][d] += patched == truth != clean
            wanted["right"][d] += clean == truth
            wanted["distance"][truth] += away[y, x]
    for row in ROWS:
        assert_close(getattr(rows, row)[0], wanted[row])
    assert rows.flips.sum() > 5 and rows.gains.sum() > 5


def test_the_bins_hold_all_pixels_outside_the_patch():
    victims = [conv_victim(0, name="first"), conv_victim(1, name="second")]
    patches = [
        None,
        Patch(random_pixels((4, 6), FULL_RANGE, 0), name="trained"),
        random_patch((4, 6), FULL_RANGE, 1),
    ]
    counter, batches = LocalityCounter(3), in_batches(pictures(5), 2)
    names = tuple(name for batch in batches for name in batch.names)
    grid = evaluate_all(
        victims, batches, patches, place="drawn", on_picture=counter.add, pictures=frozenset(names)
    )
    for row, patch in zip(grid[1:], patches[1:], strict=True):
        for scores, victim in zip(row, victims, strict=True):
            rows = counter.of(patch.name, victim.name)
            assert rows.names == names == scores.names and rows.side == math.sqrt(24)
            assert torch.equal(rows.confusion_clean.sum(1), scores.clean_outside)
            assert torch.equal(rows.confusion_patched.sum(1), scores.patched)
            labelled = scores.patched.sum((1, 2))
            lost = pixel_accuracy(scores.clean_outside) - pixel_accuracy(scores.patched)
            assert_close((rows.flips - rows.gains).sum(1) / labelled, lost, check_dtype=False)
            assert_close(rows.right.sum(1) / labelled, pixel_accuracy(scores.clean_outside), check_dtype=False)
            assert rows.flips.sum() > 0


def test_images_come_in_any_order_and_keep_the_order_of_the_first_patch():
    at = [Region(3, 4, 2, 2), Region(0, 0, 2, 2), Region(6, 1, 2, 2)]
    trained = [random_picture(i, region, image=f"i{i}") for i, region in enumerate(at)]
    control = [one._replace(patch="random", patched=one.clean) for one in trained]
    counter = LocalityCounter(3)
    for one in [*trained, control[2], control[0], control[1]]:
        counter.add(one)
    assert counter.of("random", "net").names == counter.of("trained", "net").names == ("i0", "i1", "i2")
    for i, one in enumerate(trained):
        alone = locality(one)
        for row in ROWS:
            assert torch.equal(getattr(counter.of("trained", "net"), row)[i], getattr(alone, row)[0])


def test_images_of_several_sizes():
    small, large = (
        random_picture(0, Region(3, 4, 2, 2), size=size, image=str(size)) for size in [(9, 12), (30, 40)]
    )
    rows = locality(small, large)
    assert rows.flips.shape == (2, 51)  # a 30x40 image has a diagonal of 50
    assert torch.equal(rows.flips[:1, :16], locality(small).flips) and not rows.flips[0, 16:].any()
    assert torch.equal(rows.flips[1:], locality(large).flips)
    assert rows.confusion_patched.sum((1, 2, 3)).tolist() == [
        int((one.labels != IGNORE).sum() - (one.labels[3:5, 4:6] != IGNORE).sum()) for one in (small, large)
    ]


def test_no_change_is_zero_everywhere():
    shown = random_picture(0, Region(3, 4, 2, 2))
    rows = locality(shown._replace(patched=shown.clean))
    assert not rows.flips.any() and not rows.gains.any()
    assert torch.equal(rows.confusion_clean, rows.confusion_patched)
    drops = bin_drops(rows, None, ONCE, least=1)
    assert {one.pixel_accuracy for one in drops if one.pixels} == {Estimate(0, (0, 0), 0)}
    assert {one.miou for one in drops if one.pixels} == {Estimate(0, (0, 0), 0)}
    assert flip_rate(rows, None, ONCE) == Estimate(0, (0, 0), 0)
    assert {one.value for one in class_distance(rows, None, ONCE, least=1).drop} == {0}
    assert_undefined(reach(rows, None, ONCE).r50)


def test_a_patch_that_is_its_control_has_no_excess():
    trained = some_images("trained")
    counts = resample_counts(torch.arange(6), 20, np.random.default_rng(0))
    drops = bin_drops(trained, trained, counts, least=1)[1:4]  # the bins that every image reaches
    nothing = Estimate(0, (0, 0), 0)
    assert flip_rate(trained, trained, counts) == nothing != flip_rate(trained, None, counts)
    assert {one.miou for one in drops} == {one.pixel_accuracy for one in drops} == {nothing}
    radii = reach(trained, trained, counts)
    for field in fields(radii):
        assert_undefined(getattr(radii, field.name))
    damage = class_distance(trained, trained, counts, least=1)
    assert damage.drop == (nothing,) * 3
    assert_undefined(damage.rho_share)  # all ranks are equal


@pytest.mark.parametrize("within", [1, 2, 3, 7])
def test_damage_near_the_patch_has_a_short_reach(within):
    shown = damaged(lambda away: away <= within)
    rows, control = locality(shown), locality(shown._replace(patched=shown.clean, patch="random"))
    radii = reach(rows, control, ONCE)
    assert 1 <= radii.r50.value <= radii.r90.value <= within
    assert radii.r90.value >= within - 1  # a ring of 1 px holds more than 10 % of such damage
    assert (radii.remote.value > 0) == (within > 4)  # two widths of a 2x2 patch


@pytest.mark.parametrize("beyond", [4, 6])
def test_damage_far_from_the_patch_is_remote(beyond):
    radii = reach(locality(damaged(lambda away: away > beyond)), None, ONCE)
    assert radii.remote.value == 1 and radii.r50.value > beyond


def test_remote_is_the_share_beyond_two_widths():
    shown = damaged(lambda away: away > 0)
    away = distances(30, 40, shown.region)
    share = float((away > 4).sum() / (away > 0).sum())
    assert reach(locality(shown), None, ONCE).remote.value == pytest.approx(share)


def repeated(rows: Locality, times: Tensor) -> Locality:
    """The images of a resample, one after another."""
    taken = torch.arange(len(times)).repeat_interleave(times.long())
    names = tuple(f"{i}" for i in range(len(taken)))
    return replace(rows, names=names, **{row: getattr(rows, row)[taken] for row in ROWS})


SCORES: dict[str, Callable[[Locality, Locality | None, Tensor], Estimate]] = {
    "accuracy of the nearest pixels": lambda *rows: bin_drops(*rows, least=1)[1].pixel_accuracy,
    "miou of a middle bin": lambda *rows: bin_drops(*rows, least=1)[3].miou,
    "r50": lambda *rows: reach(*rows).r50,
    "r90 in widths": lambda *rows: reach(*rows).r90_widths,
    "remote": lambda *rows: reach(*rows).remote,
    "flip rate": flip_rate,
    "drop of a class": lambda *rows: class_distance(*rows, least=1).drop[2],
    "rho with share": lambda *rows: class_distance(*rows, least=1).rho_share,
    "rho with distance": lambda *rows: class_distance(*rows, least=1).rho_distance,
}


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("with_control", [True, False])
def test_intervals_are_of_the_loop_over_resamples(score, with_control):
    of, trained = SCORES[score], some_images("trained")
    control = some_images("random") if with_control else None
    counts = resample_counts(torch.arange(6), 30, np.random.default_rng(0))
    estimate = of(trained, control, counts)
    once = counts.new_ones(1, 6)
    values = [
        of(repeated(trained, times), repeated(control, times) if control else None, once).value for times in counts
    ]
    assert estimate.ci95 == pytest.approx(interval(torch.tensor(values, dtype=torch.float64)))
    assert estimate.value == pytest.approx(of(trained, control, once).value) and estimate.undefined == 0
    assert len(set(values)) > 1


def test_miou_of_a_bin_is_the_loop():
    trained = some_images("trained")
    for one, clean, patched in zip(
        bin_drops(trained, None, torch.ones(1, 6).double(), least=1)[1:4],
        trained.confusion_clean.sum(0)[1:4],
        trained.confusion_patched.sum(0)[1:4],
        strict=True,
    ):
        assert one.miou.value == pytest.approx(miou_loop(clean) - miou_loop(patched))
        assert one.pixels == clean.sum() > 0


def test_rare_classes_stay_out_of_the_mean_and_of_the_ranking():
    trained = some_images("trained")
    pixels = trained.confusion_clean.sum((0, 1, 3))
    least = int(pixels.sort().values[1])
    rare = int(pixels.argmin())
    damage = class_distance(trained, None, torch.ones(2, 6).double(), least=least)
    assert [math.isnan(one.value) for one in damage.drop] == [c == rare for c in range(3)]
    assert abs(damage.rho_share.value) == 1  # of two classes
    of_bin = trained.confusion_clean.sum((0, 3))[3]
    drops = bin_drops(trained, None, torch.ones(2, 6).double(), least=int(of_bin.max()))
    common = int(of_bin.argmax())
    assert drops[3].classes == 1 and drops[0].classes == 0
    clean, patched = (c.sum(0)[3].double() for c in (trained.confusion_clean, trained.confusion_patched))
    iou_clean, iou_patched = (
        c[common, common] / (c[common].sum() + c[:, common].sum() - c[common, common]) for c in (clean, patched)
    )
    assert drops[3].miou.value == pytest.approx(float(iou_clean - iou_patched))
    assert_undefined(drops[0].miou)


def test_resamples_without_excess_are_left_out_and_reported():
    """Image a is hurt by the patch and image b, twice as much, by its control."""
    a, b = (random_picture(0, Region(3, 4, 2, 2), image=image) for image in "ab")
    clean = torch.zeros(9, 12).byte()
    one_wrong, two_wrong = clean.clone(), clean.clone()
    one_wrong[0, 0] = two_wrong[0, 0:2] = 1
    a, b = (shown._replace(labels=clean, clean=clean) for shown in (a, b))
    trained = locality(a._replace(patched=one_wrong), b._replace(patched=clean))
    control = locality(a._replace(patched=clean), b._replace(patched=two_wrong))
    counts = torch.tensor([[2, 0], [2, 0], [1, 1], [0, 2]]).double()
    radius = reach(trained, control, counts).r50
    assert math.isnan(radius.value)
    assert radius.ci95 == (5, 5)  # from (0, 0) to (3, 4)
    assert radius.undefined == 0.5


def test_refusals():
    trained, control, counts = some_images("trained"), some_images("random"), torch.ones(2, 6).double()
    both: list[Callable[..., object]] = [bin_drops, bin_flips, reach, flip_rate, class_distance]
    for function in both:
        for what, other in {"names": control.names[::-1], "edges": (1.0,), "victim": "net2", "side": 3.0}.items():
            with pytest.raises(
                BadInput, match=f"the control has other {what} than the patch; measure both at once"
            ):
                function(trained, replace(control, **{what: other}), counts)
        with pytest.raises(BadInput, match="resamples are of 5 images, but 6 were measured"):
            function(trained, control, counts[:, :5])
        with pytest.raises(BadInput, match="covers other pixels than the patch; measure both at the same place"):
            function(trained, some_images("random", seed=1), counts)


def test_the_counter_refuses_what_came_twice_or_never():
    counter = LocalityCounter(2)
    with pytest.raises(BadInput, match="no picture of trained on net was counted; counted: nothing"):
        counter.of("trained", "net")
    counter.add(five_by_six())
    with pytest.raises(
        BadInput, match="image a of trained on net came twice; give patches and networks their own"
    ):
        counter.add(five_by_six())
    with pytest.raises(BadInput, match="no picture of grey on net was counted; counted: trained on net"):
        counter.of("grey", "net")
    with pytest.raises(BadInput, match="labels must be below 2"):
        counter.add(five_by_six()._replace(labels=torch.full((5, 6), 7).byte(), image="b"))
    assert counter.of("trained", "net").names == ("a",)
    with pytest.raises(BadInput, match="leaves images of 5x6"):
        counter.add(five_by_six()._replace(region=Region(4, 2, 2, 2), image="c"))


def test_an_empty_region_has_no_distance():
    with pytest.raises(BadInput, match=r"no distance to an empty region; got \(0, 0, 0, 0\)"):
        distances(5, 6, Region(0, 0, 0, 0))
