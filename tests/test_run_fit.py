from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save
from torch import nn

from segpatch.data.images import SplitImages, split_images
from segpatch.errors import BadInput, Missing
from segpatch.models.checkpoints import read_checkpoint, write_network
from segpatch.models.layouts.layout import Layout
from segpatch.models.load import load_victim
from segpatch.models.networks import ALIASES, MODELS, NetworkSpec
from segpatch.runs import read_json, read_steps
from segpatch.studies.fit import _score_of, run_fit, start
from segpatch.studies.progress import Progress
from segpatch.training import FitConfig, measure_miou
from tiny import Tiny, learnable_dataset

CONFIG = FitConfig(
    steps=6,
    batch_size=2,
    crop=(8, 8),
    learning_rate=0.05,
    warmup=1,
    validate_every=2,
    averaging=0.5,
    precision="fp32",
)


class TinyWithHead(Tiny):
    """As the networks here: one auxiliary head, which a fitted file leaves out."""

    def __init__(self, classes: int, auxiliary: bool = True) -> None:
        super().__init__(classes)
        if auxiliary:
            self.aux = nn.Conv2d(8, classes, 1)

    def all_outputs(self, x):
        features = self.first(x).relu()
        return {"main": self.last(features), "aux": self.aux(features)}

    def training_loss(self, outputs, labels, criterion):
        return criterion(outputs["main"], labels) + 0.1 * criterion(outputs["aux"], labels)


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    own = Layout(source="own", build=TinyWithHead, classifier="last.weight", auxiliary=("aux.",))
    monkeypatch.setitem(MODELS, "tiny", NetworkSpec("cnn", (own,)))


@pytest.fixture
def splits(tmp_path: Path) -> tuple[SplitImages, SplitImages]:
    dataset = learnable_dataset(tmp_path / "data")
    return split_images(dataset, "train"), split_images(dataset, "val")


def fit(splits, out: Path, config: FitConfig = CONFIG, **more) -> float:
    return run_fit("tiny", *splits, config, out, **more)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "network.safetensors")[0]


def test_a_fit_is_a_victim(splits, tmp_path: Path):
    seen: list[Progress] = []
    score = fit(splits, tmp_path / "run", on_progress=seen.append)
    victim = load_victim(str(tmp_path / "run"))
    assert measure_miou(victim, splits[1]) == pytest.approx(score)
    assert victim.classes.names == ("road", "car", "sky")
    facts = victim.provenance
    assert (facts.network, facts.trained_on, facts.clean_on) == ("tiny", "folder train", "folder val")
    assert facts.clean_miou == score
    assert not any(key.startswith("aux") for key in weights_of(tmp_path / "run"))
    assert read_json(tmp_path / "run/config.json")["config"]["crop"] == [8, 8]
    rows = read_steps(tmp_path / "run")
    assert [row["miou"] is not None for row in rows] == [False, True] * 3
    assert max(row["miou"] for row in rows if row["miou"]) == score
    assert [p.done for p in seen] == [1, 2, 3, 4, 5, 6] and "mIoU" in seen[1].note


def test_a_short_name_is_stored_in_full(splits, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(ALIASES, "short", "tiny")
    score = run_fit("short", *splits, CONFIG, tmp_path / "run")
    assert read_json(tmp_path / "run/config.json")["network"] == "tiny"
    assert read_checkpoint(tmp_path / "run/network.safetensors")[1]["network"] == "tiny"
    assert fit(splits, tmp_path / "run", resume=True) == score, "the same run by either name"


@pytest.mark.parametrize("step", [1, 4])
def test_interrupted_and_resumed_gives_the_same_bits(splits, tmp_path: Path, step: int):
    def stop(progress: Progress) -> None:
        if progress.done == step:
            raise KeyboardInterrupt

    score = fit(splits, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(splits, tmp_path / "run", on_progress=stop)
    assert not (tmp_path / "run/network.safetensors").exists()
    assert fit(splits, tmp_path / "run", resume=True) == score
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "run")
    assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    assert read_steps(tmp_path / "run") == read_steps(tmp_path / "whole")


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_during_a_validation_saves_no_half_step(splits, tmp_path: Path, monkeypatch, presses: int):
    # While it validates, the module holds the averaged weights.
    def forward(module: TinyWithHead, x: torch.Tensor) -> torch.Tensor:
        if not module.training:
            for _ in range(presses):
                signal.raise_signal(signal.SIGINT)
        return Tiny.forward(module, x)

    fit(splits, tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(TinyWithHead, "forward", forward)
        fit(splits, tmp_path / "run")
    fit(splits, tmp_path / "run", resume=True)
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "run")
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_finished_fit_is_read(splits, tmp_path: Path):
    score = fit(splits, tmp_path / "run")
    seen: list[Progress] = []
    assert fit(splits, tmp_path / "run", resume=True, on_progress=seen.append) == score
    assert seen == []
    with pytest.raises(BadInput, match="already holds a run"):
        fit(splits, tmp_path / "run")


def test_the_seed_draws_the_weights(splits, tmp_path: Path):
    torch.manual_seed(1)
    fit(splits, tmp_path / "a")
    torch.manual_seed(2)
    fit(splits, tmp_path / "b")
    fit(splits, tmp_path / "c", replace(CONFIG, seed=1))
    a, b, c = (weights_of(tmp_path / name)["first.weight"] for name in "abc")
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_half_precision_keeps_biases_whole(splits, tmp_path: Path):
    fit(splits, tmp_path / "run", half=True)
    state = weights_of(tmp_path / "run")
    assert state["first.weight"].dtype == torch.float16 and state["first.bias"].dtype == torch.float32


def test_init_starts_from_another_fit(tmp_path: Path):
    source = TinyWithHead(3, auxiliary=False)
    write_network(tmp_path / "n.safetensors", source, {"network": "tiny"})
    target, layout = start("tiny", 5, tmp_path / "n.safetensors")
    assert torch.equal(target.first.weight, source.first.weight)
    assert target.last.weight.shape[0] == target.aux.weight.shape[0] == 5
    assert layout.source == "own"


def test_init_of_another_network_is_refused_and_leaves_nothing(splits, tmp_path: Path):
    write_network(tmp_path / "n.safetensors", nn.Conv2d(3, 3, 1), {})
    with pytest.raises(BadInput, match=r"does not fit tiny: [0-9]+ keys differ, the first is"):
        fit(splits, tmp_path / "run", init=tmp_path / "n.safetensors")
    with pytest.raises(Missing, match="no checkpoint at"):
        fit(splits, tmp_path / "run", init=tmp_path / "absent.safetensors")
    with pytest.raises(BadInput, match="unknown network 'tni'; did you mean 'tiny'"):
        run_fit("tni", *splits, CONFIG, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_checkpoints_are_the_networks_of_the_validations(splits, tmp_path: Path):
    score = fit(splits, tmp_path / "run", checkpoints=True)
    found = sorted((tmp_path / "run/checkpoints").iterdir())
    assert [path.name for path in found] == ["000002.safetensors", "000004.safetensors", "000006.safetensors"]
    rows = {row["step"]: row["miou"] for row in read_steps(tmp_path / "run")}
    victims = [load_victim(f"tiny={path}") for path in found]
    assert [victim.provenance.clean_miou for victim in victims] == [rows[2], rows[4], rows[6]]
    assert [measure_miou(victim, splits[1]) for victim in victims] == pytest.approx([rows[2], rows[4], rows[6]])
    assert max(rows[2], rows[4], rows[6]) == score


def test_without_being_asked_no_checkpoint_is_kept(splits, tmp_path: Path):
    fit(splits, tmp_path / "run")
    assert not (tmp_path / "run/checkpoints").exists()


def test_a_single_crop_that_a_batch_norm_cannot_learn_from_is_one_line(splits, tmp_path: Path, monkeypatch):
    class Pooled(TinyWithHead):
        """Ends in features of one value per channel, as pooled branches do."""

        def __init__(self, classes: int, auxiliary: bool = True) -> None:
            super().__init__(classes, auxiliary)
            self.norm = nn.BatchNorm2d(3)

        def all_outputs(self, x):
            self.norm(x.mean((2, 3), keepdim=True))
            return super().all_outputs(x)

    own = Layout(source="own", build=Pooled, classifier="last.weight", auxiliary=("aux.",))
    monkeypatch.setitem(MODELS, "tiny", NetworkSpec("cnn", (own,)))
    with pytest.raises(BadInput, match="cannot learn from a single crop; give --batch-size 2 or more"):
        fit(splits, tmp_path / "run", replace(CONFIG, batch_size=1))
    assert fit(splits, tmp_path / "two", replace(CONFIG, steps=1)) >= 0


def test_a_finished_fit_that_does_not_say_its_miou_is_refused(tmp_path: Path):
    (tmp_path / "network.safetensors").write_bytes(save({"a": torch.ones(1)}, metadata={"segpatch": "{}"}))
    with pytest.raises(BadInput, match="does not say its mIoU; start again with --overwrite"):
        _score_of(tmp_path / "network.safetensors")
