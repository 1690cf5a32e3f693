"""The published numbers against what is copied here by hand, and the preset `released` against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.attack_config import PRESETS, AttackConfig, resolve, step_size
from segpatch.compositing import centre_region
from segpatch.data import CITYSCAPES, Dataset, Sample, batches
from segpatch.data.images import SplitImages, split_images
from segpatch.eot import PatchEOT, generator_at
from segpatch.errors import BadInput
from segpatch.losses import LOSSES
from segpatch.models.catalogue import entries_of
from segpatch.models.networks import ALIASES, MODELS
from segpatch.models.settings import Settings
from segpatch.models.victim import Provenance, Victim
from segpatch.patch import random_pixels
from segpatch.published import (
    ATTACK_FIELDS,
    RANDOM,
    Beside,
    published_curve,
    published_curves,
    published_matrix,
    published_settings,
    victim_as_released,
)
from segpatch.published import as_released as released_fields
from segpatch.studies.matrix import measured_indices
from segpatch.studies.paper import PaperPlan, as_released
from segpatch.studies.paper.matrices import study_matrices
from segpatch.studies.planned import MatrixPlan, planned_patches
from segpatch.transforms import Scene, SceneEOT, apply_scene, apply_scene_to_labels, draw_scene
from segpatch.types import IGNORE, Batch
from segpatch.updates import sign_step
from tiny import conv_victim

L, M, S = "pidnet-l", "pidnet-m", "pidnet-s"
ICNET, V1, V2, SEGFORMER = "icnet-r50", "bisenetv1-r18", "bisenetv2", "segformer-b5"
NETWORKS = (L, M, S, ICNET, V1, V2, SEGFORMER)

# Change of the mIoU from the random patch; rows and columns in the order of NETWORKS.
CHANGES = """
-0.1082 -0.0006 -0.0020 -0.0000 +0.0008 +0.0005 -0.0018
-0.0014 -0.1303 -0.0023 -0.0007 +0.0010 +0.0002 -0.0013
-0.0011 -0.0003 -0.0862 -0.0008 +0.0010 +0.0004 -0.0014
-0.0003 -0.0003 -0.0005 -0.0350 +0.0005 +0.0005 -0.0010
-0.0001 -0.0005 -0.0010 -0.0002 -0.0605 -0.0000 -0.0021
-0.0003 -0.0003 -0.0005 -0.0002 +0.0007 -0.3854 -0.0007
+0.0001 +0.0005 -0.0000 -0.0017 +0.0024 +0.0014 -0.3628
"""
CHANGE = {
    (patch, network): float(change)
    for patch, line in zip(NETWORKS, CHANGES.split("\n")[1:-1], strict=True)
    for network, change in zip(NETWORKS, line.split(), strict=True)
}

# mIoU of Fig. 2 at epochs 0, 1, 5, 15, 16, 20, 30.
EPOCHS = (0, 1, 5, 15, 16, 20, 30)
CURVES = {
    L: (0.8898, 0.8033, 0.7677, 0.7513, 0.7406, 0.5603, 0.4809),
    M: (0.8513, 0.6229, 0.5039, 0.4894, 0.4876, 0.4791, 0.4836),
    S: (0.8462, 0.7619, 0.6488, 0.6318, 0.6236, 0.6285, 0.6270),
    ICNET: (0.7059, 0.6767, 0.6613, 0.6416, 0.6419, 0.6372, 0.6353),
    V1: (0.8183, 0.7301, 0.6925, 0.6838, 0.6857, 0.6762, 0.6822),
    V2: (0.7238, 0.4331, 0.0991, 0.0754, 0.0740, 0.0715, 0.0690),
}


def drop(patch: str, network: str) -> float:
    value = published_matrix().drop_over_random(patch, network)
    assert value is not None
    return value


def test_cells_at_full_precision():
    cells = {
        (RANDOM, L): 0.8995722532,
        (RANDOM, V1): 0.7110107541,
        (RANDOM, SEGFORMER): 0.8118492961,
        (L, L): 0.7913966775,
        (M, SEGFORMER): 0.8105466366,
        (S, M): 0.8615489602,
        (ICNET, S): 0.8647707105,
        (V1, ICNET): 0.6553126574,
        (V2, V2): 0.2990501523,
        (SEGFORMER, V1): 0.7134591342,
    }
    for (patch, network), miou in cells.items():
        assert published_matrix().cell(patch, network) == pytest.approx(miou, abs=1.1e-10)


def test_columns_are_networks_of_segpatch():
    matrix = published_matrix()
    assert tuple(matrix.networks) == NETWORKS
    assert tuple(matrix.rows) == (RANDOM, *NETWORKS)
    assert all(tuple(row) == NETWORKS for row in matrix.rows.values())
    assert matrix.networks.keys() <= MODELS.keys()
    assert ALIASES.items() <= matrix.aliases.items()


def test_networks():
    networks = published_matrix().networks
    clean = {
        name: (round(known.clean_miou, 7), round(known.clean_pixel_accuracy, 4))
        for name, known in networks.items()
    }
    assert clean == {
        L: (0.9035220, 0.9808),
        M: (0.8681436, 0.9748),
        S: (0.8695765, 0.9755),
        ICNET: (0.6614605, 0.9407),
        V1: (0.7149594, 0.9501),
        V2: (0.6907961, 0.9473),
        SEGFORMER: (0.8129092, 0.9658),
    }
    assert [known.publisher_miou for known in networks.values()] == [
        0.809,
        0.799,
        0.788,
        None,
        0.7544,
        0.7495,
        None,
    ]


def test_networks_are_the_published_checkpoints():
    """The file that was used, and the publisher's mIoU of the one trained on train alone."""
    for name, known in published_matrix().networks.items():
        if known.weights is None:
            continue
        file = known.weights.removeprefix("nvidia/")
        used = next(entry for entry in entries_of(name) if entry.file.removesuffix(".bin") == file)
        assert used.trained_on == known.trained_on
        same = [e for e in entries_of(name) if (e.publisher, e.trained_on) == (used.publisher, "cityscapes train")]
        assert known.publisher_miou in (None, *(e.miou for e in same))


def test_changes_from_the_random_patch():
    assert len(CHANGE) == 49
    for (patch, network), change in CHANGE.items():
        assert round(-drop(patch, network), 4) == change, (patch, network)


def test_white_box_drops():
    expected = {L: 0.108, M: 0.130, S: 0.086, ICNET: 0.035, V1: 0.061, V2: 0.385, SEGFORMER: 0.363}
    shares = {L: 12.0, M: 15.1, S: 10.0, ICNET: 5.3, V1: 8.5, V2: 56.3, SEGFORMER: 44.7}
    for network in NETWORKS:
        assert round(drop(network, network), 3) == expected[network]
        share = drop(network, network) / published_matrix().rows[RANDOM][network]
        assert round(100 * share, 1) == shares[network]


def test_patches_do_not_transfer():
    changes = [-drop(patch, network) for patch, network in CHANGE if patch != network]
    assert len(changes) == 42
    assert (round(min(changes), 4), round(max(changes), 4)) == (-0.0023, 0.0024)
    assert round(sum(changes) / 42, 4) == -0.0003
    assert round(sum(map(abs, changes)) / 42, 4) == 0.0008
    assert sum(change < 0 for change in changes) == 29


def test_random_patch_against_none():
    matrix = published_matrix()
    changes = [round(matrix.rows[RANDOM][name] - known.clean_miou, 4) for name, known in matrix.networks.items()]
    assert changes == [-0.0039, -0.0063, -0.0043, -0.0060, -0.0039, -0.0064, -0.0011]


def test_cells_that_are_not_published_are_none():
    matrix = published_matrix()
    for patch, network in ((L, "ddrnet-23"), ("grey", L), ("pidnet-l+bisenetv2/strong/s0", L), ("none", L)):
        assert matrix.cell(patch, network) is None
        assert matrix.drop_over_random(patch, network) is None


def test_other_names_of_a_network():
    cell = published_matrix().cell
    assert cell("icnet", "bisenetv1") == cell(ICNET, V1)
    assert cell("icnet-r50/released/s0", "bisenetv1-r18:model_final_v1_city_new") == cell(ICNET, V1)
    assert cell("random/released/s0", "segformer-b5-finetuned-cityscapes-1024-1024") == cell(RANDOM, SEGFORMER)


def test_beside_by_hand():
    seen = Beside.of(0.05, published_matrix().drop_over_random("icnet", "icnet"))
    assert seen == pytest.approx((0.05, 0.0350408, 0.0149592), abs=1e-7)


def test_beside_nothing():
    assert Beside.of(0.25, None) == (0.25, None, None)
    assert Beside.of(None, 0.25) == (None, 0.25, None)


def test_curves():
    curves = published_curves()
    assert curves.classes == CITYSCAPES.names
    assert tuple(curves.networks) == NETWORKS[:6]
    for name, curve in curves.networks.items():
        assert len(curve.miou) == 31
        assert [curve.miou[epoch] for epoch in EPOCHS] == pytest.approx(CURVES[name], abs=5.1e-5)


def test_curves_of_classes():
    for name in (L, M, S):
        curve = published_curves().networks[name]
        assert tuple(curve.iou) == CITYSCAPES.names
        assert {len(values) for values in curve.iou.values()} == {31}
        means = [sum(values) / 19 for values in zip(*curve.iou.values(), strict=True)]
        assert means == pytest.approx(curve.miou, abs=1e-5)
    assert all(not published_curves().networks[name].iou for name in (ICNET, V1, V2))
    road, train = published_curves().networks[L].iou["road"], published_curves().networks[S].iou["train"]
    assert [road[epoch] for epoch in (0, 1, 2, 10, 30)] == pytest.approx(
        [0.9911, 0.3694, 0.1938, 0.1271, 0.2520], abs=5.1e-5
    )
    assert train[10] == pytest.approx(0.4801, abs=5.1e-5)


def test_nothing_can_be_changed():
    matrix = published_matrix()
    with pytest.raises(FrozenInstanceError):
        matrix.source = "hearsay"
    with pytest.raises(TypeError):
        matrix.rows[RANDOM][L] = 1.0
    with pytest.raises(TypeError):
        published_curves().networks[L].iou["road"] = ()
    assert published_matrix() is matrix


def test_everything_says_where_it_comes_from():
    for known in (published_matrix(), published_curves()):
        assert "a3c9462" in known.source
        assert len(known.caveats) >= 4
    assert all(setting.source for setting in published_settings().values())


# ------------------------------------------------------------------- the preset `released` against the table


class Picture(NamedTuple):
    """An image of Cityscapes' size, brighter from left to right, of one row in memory."""

    labelled = True

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        row = np.arange(2048, dtype=np.uint8)[None, :, None]
        return np.broadcast_to(row, (1024, 2048, 3)), np.broadcast_to(row[..., 0] % 19, (1024, 2048))

    def read_labels(self) -> np.ndarray:
        return self.read()[1]

    def size(self) -> tuple[int, int]:
        return 1024, 2048

    def digest(self) -> bytes:
        return b""


def pictures(count: int) -> tuple[Sample, ...]:
    return tuple(Sample(f"image{k}", "city", Picture()) for k in range(count))


CITYSCAPES_SIZED = Dataset(
    kind="cityscapes",
    spec="cityscapes:DIR",
    classes=CITYSCAPES,
    splits={"train": pictures(2975), "val": pictures(500)},
    eval_split="val",
)
HOSTILE = PaperPlan(
    presets=("strong", "paper"),
    seeds=(3, 4),
    ensembles=(("cnn", "transformer"),),
    overrides={
        "steps": 5, "batch_size": 2, "crop": (64, 64), "patch_size": (9, 9), "loss": "segpgd", "flip": 0.0,
        "scales": (1.0, 1.0), "place": "drawn", "start": "grey", "stepper": "adam", "step_size": 0.5,
        "schedule": "cosine", "select": "best", "held_out": 4, "patch_eot": PatchEOT(), "precision": "bf16",
        "range": ((0, 0, 0), (1, 1, 1)),
    },
    images=3,
    groups=("city",),
    train_images=7,
    split="train",
    snapshots=2,
    precision="bf16",
    batch_size=7,
)  # fmt: skip
"""Everything that the published run fixed, and another choice of it."""


class Run(NamedTuple):
    """What a study as released trains and measures, from the plan to the resolved config."""

    config: AttackConfig
    victim: Victim
    training: SplitImages
    matrix: MatrixPlan

    @property
    def scenes(self) -> list[Scene]:
        """Some hundred draws."""
        eot = SceneEOT(self.config.scales, self.config.crop, self.config.flip)
        return [draw_scene(eot, 1024, 2048, generator_at(0, number)) for number in range(400)]

    @property
    def measured(self) -> Batch:
        """The first images as they are measured."""
        split, indices = self.matrix.split, measured_indices(CITYSCAPES_SIZED, self.matrix.split, self.matrix)
        return next(batches(CITYSCAPES_SIZED, split, batch_size=self.matrix.batch_size, indices=indices))

    def region(self, height: int, width: int) -> tuple[int, ...]:
        return tuple(centre_region(height, width, *self.config.patch_size))

    def normalised(self, value: Tensor) -> list[float]:
        """Three channel values as the network sees them."""
        return self.victim.normalise(value.view(1, 3, 1, 1)).flatten().tolist()


def published_victim(family: str) -> Victim:
    """A network of the published run, but for its input and weights."""
    network = {"cnn": V2, "transformer": SEGFORMER}[family]
    others = {
        "mean": (0.1, 0.2, 0.3),
        "std": (1, 1, 1),
        "channel_order": "bgr",
        "value_range": 255.0,
        "window": 512,
    }
    about = Provenance(network=network, family=family)
    return replace(conv_victim(name=family), **others, classes=CITYSCAPES, provenance=about)


@cache
def released(family: str) -> Run:
    """A hostile plan, once it is as released."""
    victims, plan = as_released([published_victim(family)], CITYSCAPES_SIZED, HOSTILE)
    training = split_images(CITYSCAPES_SIZED, CITYSCAPES_SIZED.train_split, plan.train_images)
    networks, matrix = study_matrices(victims, training, plan)["matrix"]
    (planned,) = planned_patches(networks, matrix)
    assert planned.name == f"{family}/released/s0"
    return Run(resolve(planned.config, training, planned.victims), networks[0], training, matrix)


def bounds(run: Run) -> list[float]:
    """Lowest and highest normalised value that a patch may take, over all channels."""
    low, high = (torch.tensor(run.normalised(torch.tensor(bound))) for bound in run.config.range)
    assert low.max() - low.min() < 1e-6
    assert high.max() - high.min() < 1e-6
    return [round(float(low[0]), 6) + 0.0, round(float(high[0]), 6)]


def step_in_normalised_units(run: Run) -> float:
    """How far a step moves what the network sees of a patch, in each channel alike."""
    low, high = (torch.tensor(bound, dtype=torch.float64) for bound in run.config.range)
    middle = ((low + high) / 2).view(3, 1, 1)
    share = step_size(run.config, run.config.steps - 1)
    after = sign_step(middle, torch.ones(3, 1, 1, dtype=torch.float64), share, low, high)
    moved = ((after - middle).flatten() / torch.tensor(run.victim.std, dtype=torch.float64)).tolist()
    assert max(moved) - min(moved) < 1e-9
    return round(moved[0], 9)


def padding(run: Run) -> float:
    """The one value below and to the right of an image, which stays at the top left."""
    shown = apply_scene(torch.ones(3, 2, 2), Scene((2, 2), 0, 0, (3, 3), False))
    assert (shown[:, :2, :2] == 1).all()
    outside = torch.cat([shown[:, 2].flatten(), shown[:, :, 2].flatten()]).unique()
    assert len(outside) == 1
    return float(outside)


def padding_label(run: Run) -> int:
    return int(
        apply_scene_to_labels(torch.zeros(2, 2, dtype=torch.uint8), Scene((2, 2), 0, 0, (3, 3), False))[2, 2]
    )


SIZED = torch.arange(24.0).view(1, 1, 4, 6).square() / 576
"""A small picture that each interpolation makes something else of."""


def image_interpolation(run: Run) -> str:
    shown = apply_scene(SIZED[0].expand(3, 4, 6), Scene((7, 9), 0, 0, (7, 9), False))[0]
    modes = ("nearest", "nearest-exact", "area", "bilinear", "bicubic")
    (found,) = (mode for mode in modes if torch.allclose(shown, F.interpolate(SIZED, (7, 9), mode=mode)[0, 0]))
    return found


def label_interpolation(run: Run) -> str:
    shown = apply_scene_to_labels(
        torch.tensor([[0, 9], [0, 9]], dtype=torch.uint8), Scene((5, 5), 0, 0, (5, 5), False)
    )
    return "nearest" if set(shown.flatten().tolist()) == {0, 9} else "mixed"


def eval_scales(run: Run) -> tuple[float, ...]:
    return tuple({side / full for side, full in zip(run.measured.images.shape[2:], (1024, 2048), strict=True)})


def eval_flip(run: Run) -> float:
    shown, whole = run.measured.images[0, 0, 0], torch.arange(2048).to(torch.uint8) / 255
    return 0.0 if torch.equal(shown, whole) else 1.0


def seed(run: Run) -> int | None:
    """None: one run, with whatever seed is asked for."""
    asked = as_released([published_victim("cnn")], CITYSCAPES_SIZED, HOSTILE, ["seeds"])[1]
    return None if len(run.matrix.seeds) == 1 and asked.seeds == HOSTILE.seeds else run.config.seed


def unused(run: Run) -> tuple[str, ...]:
    of_the_patch = ("rotation", "translation", "patch scaling", "brightness", "noise")
    fixed = run.config.patch_eot is None and run.config.place == "centre"
    known = {field.name for field in fields(AttackConfig)}
    terms = tuple(n for n in ("total variation", "printability") if n.replace(" ", "_") not in known)
    return (*(of_the_patch if fixed else ()), *terms)


TENTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0, 2.1)
SIZES = (
    (512, 1024), (615, 1229), (717, 1434), (819, 1638), (922, 1843), (1024, 2048), (1127, 2253), (1229, 2458),
    (1331, 2662), (1434, 2867), (1536, 3072), (1639, 3277), (1741, 3482), (1843, 3686), (1946, 3891), (2048, 4096),
    (2151, 4301),
)  # fmt: skip
UNUSED = ("rotation", "translation", "patch scaling", "brightness", "noise", "total variation", "printability")
RANGE = ((0.485, 0.456, 0.406), (0.714, 0.680, 0.631))
Row = tuple[str, Any, Any, Callable[[Run], Any]]

# Name, for a CNN, for a transformer, and how it is read from a resolved config.
ROWS: list[Row] = [
    ("dataset", "cityscapes", "cityscapes", lambda run: run.training.dataset.kind),
    ("train_split", "train", "train", lambda run: run.training.split),
    ("val_split", "val", "val", lambda run: run.matrix.split),
    ("val_images", 500, 500, lambda run: len(measured_indices(CITYSCAPES_SIZED, run.matrix.split, run.matrix))),
    ("classes", 19, 19, lambda run: len(run.victim.label_classes)),
    ("ignore_label", 255, 255, lambda run: IGNORE),
    ("train_images", 2975, 2975, lambda run: len(run.training)),
    ("patch_size", (200, 200), (200, 200), lambda run: run.config.patch_size),
    ("place", "centre", "centre", lambda run: run.config.place),
    ("train_region", (412, 412, 200, 200), (412, 412, 200, 200), lambda run: run.region(*run.config.crop)),
    ("val_region", (412, 924, 200, 200), (412, 924, 200, 200), lambda run: run.region(1024, 2048)),
    ("start", "random", "random", lambda run: run.config.start),
    ("loss", "correct-pixel", "correct-pixel", lambda run: run.config.loss),
    ("stepper", "sign", "sign", lambda run: run.config.stepper),
    ("step_size", 0.005, 0.005, step_in_normalised_units),
    ("schedule", "constant", "constant", lambda run: run.config.schedule),
    ("clamp", (0.0, 1.0), (0.0, 1.0), lambda run: tuple(bounds(run))),
    ("range", RANGE, RANGE, lambda run: run.config.range),
    ("batch_size", 6, 1, lambda run: run.config.batch_size),
    ("epochs", 30, 15, lambda run: run.config.steps // -(-2975 // run.config.batch_size)),
    ("updates", 14880, 45060, lambda run: run.config.steps),
    ("select", "last", "last", lambda run: run.config.select),
    ("held_out", 0, 0, lambda run: run.config.held_out),
    ("scales", TENTHS, TENTHS, lambda run: run.config.scales),
    ("scale_base", 2048, 2048, lambda run: next(s.scaled[1] for s in run.scenes if s.scaled[0] == 1024)),
    ("scaled_sizes", SIZES, SIZES, lambda run: tuple(sorted({s.scaled for s in run.scenes}))),
    ("image_interpolation", "bilinear", "bilinear", image_interpolation),
    ("label_interpolation", "nearest", "nearest", label_interpolation),
    ("crop", (1024, 1024), (1024, 1024), lambda run: run.config.crop),
    ("padding", 0.0, 0.0, padding),
    ("padding_label", 255, 255, padding_label),
    ("flip", 0.5, 0.5, lambda run: run.config.flip),
    ("patch_eot", None, None, lambda run: run.config.patch_eot),
    ("unused", UNUSED, UNUSED, unused),
    ("mean", (0.485, 0.456, 0.406), (0.485, 0.456, 0.406), lambda run: run.victim.mean),
    ("std", (0.229, 0.224, 0.225), (0.229, 0.224, 0.225), lambda run: run.victim.std),
    ("channel_order", "rgb", "rgb", lambda run: run.victim.channel_order),
    ("value_range", 1.0, 1.0, lambda run: run.victim.value_range),
    ("window", None, None, lambda run: run.victim.window),
    ("eval_size", (1024, 2048), (1024, 2048), lambda run: tuple(run.measured.images.shape[2:])),
    ("eval_batch_size", 1, 1, lambda run: len(run.measured.images)),
    ("eval_scales", (1.0,), (1.0,), eval_scales),
    ("eval_flip", 0.0, 0.0, eval_flip),
    ("seed", None, None, seed),
    ("precision", "fp32", "fp32", lambda run: run.config.precision),
    ("precision", "fp32", "fp32", lambda run: run.matrix.precision),
]


@pytest.mark.parametrize(("name", "cnn", "transformer", "read"), ROWS, ids=[row[0] for row in ROWS])
def test_released_resolves_to_the_published(name, cnn, transformer, read):
    setting = published_settings()[name]
    for family, expected in (("cnn", cnn), ("transformer", transformer)):
        assert setting.of(family) == expected
        assert read(released(family)) == expected


def test_every_published_setting_is_looked_at():
    """align_corners is a network's own, see `test_what_a_network_saw_of_its_images`."""
    assert {row[0] for row in ROWS} | {"align_corners"} == published_settings().keys()


def test_paper_and_code_differ_where_they_do():
    settings = published_settings()
    assert settings["scales"].paper == (0.5, 2.0)
    assert settings["batch_size"].paper == {"cnn": 6, "transformer": 1}
    silent = {name for name, setting in settings.items() if setting.paper is None and setting.value is not None}
    assert {"range", "clamp", "mean", "std", "align_corners", "padding", "updates"} <= silent


@pytest.mark.parametrize("family", ["cnn", "transformer"])
def test_as_released_is_the_preset(family):
    """But for the epochs, which were not whole there, and the patches that are kept."""
    run = released(family)
    for config in (AttackConfig(**released_fields(family)), PRESETS["released"]):
        found = resolve(config, run.training, [run.victim])
        assert replace(found, steps=run.config.steps, snapshots=run.config.snapshots) == run.config
    assert run.config.snapshots == {"cnn": 30, "transformer": 15}[family], "one an epoch"
    assert found.steps == {"cnn": 14875, "transformer": 44625}[family]
    assert set(ATTACK_FIELDS) < {field.name for field in fields(AttackConfig)}


def test_an_unknown_family_or_network_names_the_known():
    with pytest.raises(BadInput, match="transformer"):
        released_fields("vit")
    with pytest.raises(BadInput, match="pidnet-s"):
        victim_as_released("pidnet-xs")


def test_scenes_are_as_published():
    """The short side is made from the rounded long side."""
    sizes = published_settings()["scaled_sizes"].value
    for scale, (height, width) in zip(TENTHS, sizes, strict=True):
        assert (width, height) == (int(2048 * scale + 0.5), int(1024 * int(2048 * scale + 0.5) / 2048 + 0.5))
    scenes = released("cnn").scenes
    assert 150 < sum(scene.flip for scene in scenes) < 250
    assert all(scene.size == (1024, 1024) for scene in scenes)


def test_the_curve_of_a_network():
    assert published_curve("pidnet-s:best") is published_curves().networks[S]
    assert published_curve("icnet/released/s0") is published_curves().networks[ICNET]
    assert published_curve(SEGFORMER) is None and published_curve("a") is None


def test_the_start_is_uniform_in_the_range():
    run = released("cnn")
    pixels = random_pixels(run.config.patch_size, run.config.range, seed=0)
    seen = run.victim.normalise(pixels[None])[0].flatten(1)
    assert seen.amin(1).tolist() == pytest.approx([0] * 3, abs=1e-3)
    assert seen.amax(1).tolist() == pytest.approx([1] * 3, abs=1e-3)
    assert seen.mean(1).tolist() == pytest.approx([0.5] * 3, abs=5e-3)


def test_the_loss_is_a_mean_over_right_pixels_under_the_patch():
    loss = LOSSES[released("cnn").config.loss]
    assert (loss.over, loss.seen, loss.mix) == ("right", "patched", None)


# The layouts of the published checkpoints, and what of a network's own input was another one in the published run.
LAYOUTS = {
    L: ("official", set()),
    M: ("official", set()),
    S: ("official", set()),
    ICNET: ("torchvision", set()),
    V1: ("coincheung", {"mean", "std"}),
    V2: ("coincheung", {"mean", "std"}),
    SEGFORMER: ("hugging-face", {"align_corners", "window"}),
}


@pytest.mark.parametrize("network", NETWORKS)
def test_what_a_network_saw_of_its_images(network):
    source, others = LAYOUTS[network]
    layout = MODELS[network].layout(source)
    with torch.device("meta"):
        align_corners = layout.build(19, auxiliary=False).output_align_corners
    used = published_matrix().networks[network].weights or ""
    entry = [e for e in entries_of(network) if used and e.file.startswith(used.removeprefix("nvidia/"))]
    own = Victim(nn.Identity(), mean=layout.mean, std=layout.std, align_corners=align_corners)
    own = entry[0].settings.on(own) if entry else own
    theirs = Settings(**victim_as_released(network)).on(own)
    expected = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "channel_order": "rgb"}
    expected |= {"value_range": 1.0, "align_corners": network not in (V1, V2), "window": None, "stride": None}
    assert theirs.inference == expected
    assert {key for key in expected if own.inference[key] != expected[key]} - {"stride"} == others
