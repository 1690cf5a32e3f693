"""Faults that make numbers mislead, each planted whole and looked for at every door that it can come in by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from segpatch.data import Dataset, open_data
from segpatch.data.images import split_images
from segpatch.errors import SegpatchError
from segpatch.models.victim import Provenance, Victim
from segpatch.patch import Patch, random_patch
from segpatch.report.record import read_study
from segpatch.studies.attack import run_attack, training_warnings
from segpatch.studies.matrix import run_matrix
from segpatch.studies.paper import PaperPlan, run_paper
from segpatch.studies.planned import MatrixPlan
from segpatch.updates import sign_step
from test_probes import FineTrigger, Noisy, Normed, Rounding
from tiny import CLASSES, TINY, Tiny, learnable_dataset, plain, write_learnable

STEPS = {"steps": 4, "batch_size": 2, "patch_size": (4, 4), "crop": (10, 10), "scales": (0.8, 1.2)}
Door = Callable[..., list[str]]
Said = tuple[str, list[str]]
"""A door and its warnings."""


def by_attack(victims: Sequence[Victim], data: Dataset, out: Path, **more: object) -> list[str]:
    run_attack(victims, split_images(data, "train"), replace(TINY, **{**STEPS, **more}), out)  # type: ignore[arg-type]
    return training_warnings(out)


def by_transfer(victims: Sequence[Victim], data: Dataset, out: Path, **more: object) -> list[str]:
    return run_matrix(victims, data, MatrixPlan(overrides={**STEPS, **more}, pictures=0), out).warnings


def by_evaluate(
    victims: Sequence[Victim], data: Dataset, out: Path, given: Sequence[Patch] = (), **_: object
) -> list[str]:
    """Of given patches; of a random one that says it was trained on the first network where none is given."""
    given = given or [replace(random_patch((4, 4), TINY.range, 0), name="p", kind="trained", trained_on=("own",))]
    return run_matrix(victims, data, MatrixPlan(presets=(), pictures=0), out, given=given).warnings


def by_study(victims: Sequence[Victim], data: Dataset, out: Path, **more: object) -> list[str]:
    plan = PaperPlan(presets=("paper",), seeds=(0,), overrides={**STEPS, **more}, only=("matrix",), batch_size=2)
    run_paper(victims, data, plan, out)
    return read_study(out).warnings


ROOT = Path(__file__).parent.parent
DOORS: dict[str, Door] = {
    "attack": by_attack,
    "transfer": by_transfer,
    "evaluate": by_evaluate,
    "study": by_study,
}
MEASURING = ["transfer", "evaluate", "study"]
TRAINING = ["attack", "transfer", "study"]


@pytest.fixture(scope="module", autouse=True)
def no_pages_and_pictures() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for module in ("matrix", "paper.run"):
            patch.setattr(f"segpatch.studies.{module}.write_report", lambda run, out, **how: None)
        patch.setattr("segpatch.studies.rows.write_picture", lambda run, picture: None)
        yield


class Brightest(nn.Module):
    """The class is the brightest channel, as in `learnable`; the darkest one in images more red than green."""

    def forward(self, x: Tensor) -> Tensor:
        lead = x[:, :1].mean((2, 3), keepdim=True) - x[:, 1:2].mean((2, 3), keepdim=True)
        return x * (1 - 24 * lead)


def own(name: str = "own", module: nn.Module | None = None, **more: object) -> Victim:
    return replace(plain(module or Brightest(), name), classes=CLASSES, **more)  # type: ignore[arg-type]


def left_in_training() -> Victim:
    victim = own("trains", Normed(True))
    victim.module.train()
    return victim


RECORD = Provenance(clean_miou=1.0, clean_on="folder val")
NETWORKS: dict[str, Callable[[], Victim]] = {
    "sound": lambda: own("sound", provenance=RECORD),
    "hides": lambda: own("hides", Rounding()),
    "drops": lambda: own("drops", Noisy()),
    "mixes": lambda: own("mixes", Normed(False)),
    "trains": left_in_training,
    "bgr": lambda: own("bgr", provenance=RECORD, channel_order="bgr"),
    "mean": lambda: own("mean", provenance=RECORD, mean=(0.7, 0.0, 0.0)),
    "std": lambda: own("std", provenance=RECORD, std=(1.0, 20.0, 1.0)),
    "saw": lambda: own("saw", provenance=Provenance(trained_on="folder train+val")),
}
"""Networks by the fault of each."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """`learnable` images, each darker than the one before; what is sky has no label in the measured ones."""
    root = tmp_path_factory.mktemp("data")
    spec = write_learnable(root)
    for index, path in enumerate(sorted(root.glob("images/*/*"))):
        Image.fromarray((np.array(Image.open(path)) * (1 - 0.05 * index)).astype(np.uint8)).save(path)
    for path in (root / "labels/val").iterdir():
        labels = np.array(Image.open(path))
        Image.fromarray(np.where(labels == 2, 255, labels)).save(path)
    return open_data(spec)


@pytest.fixture(scope="module", params=DOORS)
def said(request: pytest.FixtureRequest, data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Said:
    """What a door says of all these networks."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        victims = [network() for network in NETWORKS.values()]
    return request.param, DOORS[request.param](victims, data, tmp_path_factory.mktemp("run") / "run")


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ("hides", "no gradient leads from its logits"),
        ("drops", "it predicts one image differently when asked twice"),
        ("mixes", "its prediction of an image depends on what else is in the batch"),
        ("trains", "4 of its modules are in training mode"),
        ("trains", "predicting changes its norm.running_mean"),
    ],
)
def test_a_network_that_is_not_what_it_seems_is_named_at_every_door(said: Said, network: str, words: str):
    assert sum(text.startswith(f"{network}: {words}") for text in said[1]) == 1


def test_a_network_that_is_shown_the_wrong_images_or_saw_them_is_named_wherever_it_is_measured(said: Said):
    door, texts = said
    found = [text.split()[0].strip(":") for text in texts if "clean mIoU is 0." in text]
    assert found == (["bgr", "mean", "std"] if door in MEASURING else [])
    found = [text.split()[0] for text in texts if "was trained on folder val" in text]
    assert found == (["saw"] if door in MEASURING else [])


def test_a_class_that_no_label_has_is_named_wherever_it_is_measured(said: Said):
    door, texts = said
    found = [text.split(":")[0] for text in texts if "no labelled pixel on" in text]
    assert found == (["sky"] if door in MEASURING else [])


def test_of_a_sound_network_nothing_is_said(said: Said):
    assert not [text for text in said[1] if text.startswith(("sound: ", "sound was "))]


@pytest.mark.parametrize("door", DOORS)
def test_a_network_that_returns_what_is_no_number_ends_the_run(door: str, data: Dataset, tmp_path: Path):
    module = Tiny()
    module.last.weight.data[0, 0] = float("nan")
    with pytest.raises(SegpatchError, match=r"not finite.*check (the|its) checkpoint"):
        DOORS[door]([own(module=module)], data, tmp_path / "run")


@pytest.mark.parametrize("door", MEASURING)
def test_a_patch_scored_under_itself_or_like_its_control_is_named(
    door: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("segpatch.evaluation.cover", lambda labels, region: labels)
    # With no step worth the name a patch stays what it starts from, which is its control.
    said = DOORS[door]([own()], data, tmp_path / "run", step_size=1e-9)
    assert any("scored on other pixels with the patch than without it" in text for text in said)
    assert any("on own: no better than its random control" in text for text in said)


@pytest.mark.parametrize("door", TRAINING)
def test_a_gradient_that_is_nothing_is_named(door: str, data: Dataset, tmp_path: Path):
    said = DOORS[door]([own(module=nn.Conv2d(3, 3, 1))], data, tmp_path / "run")
    assert any("the patch gradient was exactly 0 in 4 of 4 steps" in text for text in said)


@pytest.mark.parametrize("door", TRAINING)
def test_a_training_that_undoes_itself_is_named(
    door: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    taken: list[Tensor] = []

    def turning(pixels: Tensor, gradient: Tensor, *rest: float | Tensor) -> Tensor:
        taken.append(pixels)
        return sign_step(pixels, gradient if len(taken) <= 20 else -gradient, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("segpatch.attack.sign_step", turning)
    said = DOORS[door]([own()], data, tmp_path / "run", steps=40, step_size=0.1, batch_size=4, crop=(12, 16))
    assert any("more steps made it weaker" in text for text in said)


def trained(victims: Sequence[Victim], data: Dataset, out: Path, **more: object) -> Patch:
    """A patch of the first network, trained by the recipe of all here but for what is said."""
    config = replace(TINY, **{**STEPS, **more})  # type: ignore[arg-type]
    return run_attack(victims[:1], split_images(data, "train"), config, out)


def test_patches_that_were_not_made_alike_are_named(data: Dataset, tmp_path: Path):
    victims = [own()]
    patches = [
        trained(victims, data, tmp_path / "one"),
        trained(victims, learnable_dataset(tmp_path / "data"), tmp_path / "two"),
        trained(victims, data, tmp_path / "three", precision="bf16"),
    ]
    patches = [replace(patch, name=f"p{index}") for index, patch in enumerate(patches)]
    said = by_evaluate(victims, data, tmp_path / "run", given=patches)
    assert any(text.startswith("the patches were trained on 2 versions of folder train:") for text in said)
    assert any(text.startswith("the patches were trained in bf16 and fp32:") for text in said)


def test_a_patch_whose_picture_does_nothing_is_named(data: Dataset, tmp_path: Path):
    class Fine(FineTrigger):
        """With a third class, which it predicts where the trigger is seen, and no label has."""

        def forward(self, x: Tensor) -> Tensor:
            road, sky = super().forward(x).unbind(1)
            return torch.stack([road, torch.full_like(road, -2.0), sky], 1)

    victim = own(module=Fine())
    patch = Patch(torch.full((3, 4, 4), FineTrigger.value), name="fine", kind="trained", trained_on=("own",))
    said = by_evaluate([victim], data, tmp_path / "run", given=[patch])
    assert any(text.startswith("fine on own: as an 8-bit PNG its drop is ") for text in said)


def test_more_steps_that_gave_a_weaker_patch_are_named(data: Dataset, tmp_path: Path):
    victims = [own()]
    strong = trained(victims, data, tmp_path / "strong", steps=10, step_size=0.2)
    weak = trained(victims, data, tmp_path / "weak", steps=12, step_size=1e-9)
    given = [replace(strong, name="short"), replace(weak, name="long")]
    said = by_evaluate(victims, data, tmp_path / "run", given=given)
    assert any(text.startswith("long on own: weaker after 12 steps than short after 10") for text in said)


@pytest.mark.parametrize("door", ["transfer", "study"])
def test_a_patch_that_never_saw_a_network_and_beats_its_own_is_named(door: str, data: Dataset, tmp_path: Path):
    class Hidden(Brightest):
        """The same network, its gradient masked."""

        def forward(self, x: Tensor) -> Tensor:
            return super().forward((x * 8).round() / 8)

    victims = [own("open"), own("hidden", Hidden())]
    said = DOORS[door](victims, data, tmp_path / "run", steps=10, step_size=0.2)
    words = "hidden/paper/s0 on hidden: weaker than open/paper/s0, which never saw it"
    assert any(text.startswith(words) for text in said)


def test_the_table_names_functions_and_tests_that_there_are():
    text = (ROOT / "docs/trust.md").read_text()
    rows = [line.split("|")[1:-1] for line in text.split("| fault |")[1].splitlines()[2:] if line.startswith("|")]
    assert len(rows) >= 17
    for fault, _, finders, tests in rows:
        found = re.findall(r"`(\w+)\.(\w+)`", finders)
        assert found and all(hasattr(import_module(f"segpatch.{module}"), name) for module, name in found), fault
        planted = re.findall(r"`(\w+\.py)::(\w+)`", tests)
        assert planted, fault
        for file, name in planted:
            assert f"\ndef {name}(" in (ROOT / "tests" / file).read_text(), (fault, name)
