import json
from pathlib import Path

import pytest
import torch

from segpatch.cli import main
from segpatch.errors import BadInput, Missing
from segpatch.studies.bench import BenchPlan, bench, load_reference

NAIVE = Path(__file__).parents[1] / "benchmarks" / "naive.py"
CPU = torch.device("cpu")


def test_every_figure_of_a_network():
    seen = []
    plan = BenchPlan(size=(64, 96), batch=1, repeats=2)
    (row,) = bench(["pidnet-s"], plan, CPU, load_reference(NAIVE), seen.append)
    assert seen == [row]
    assert row.network == "pidnet-s"
    assert set(row.timings) == {"forward", "forward_backward", "step", "evaluation", "naive"}
    assert all(len(timing.seconds) == 2 for timing in row.timings.values())
    assert set(row.ratios) == {"step", "evaluation", "naive"}
    expected = [
        a / b for a, b in zip(*(row.timings[k].seconds for k in ("step", "forward_backward")), strict=True)
    ]
    assert row.ratios["step"].low == pytest.approx(min(expected))
    json.dumps(row.facts())


def test_an_alias_and_no_reference():
    (row,) = bench(["bisenetv1"], BenchPlan(size=(64, 64), batch=1, repeats=1), CPU)
    assert row.network == "bisenetv1-r18"
    assert "naive" not in row.ratios


def test_one_part_alone():
    for only, actions in (
        ("step", {"forward_backward", "step"}),
        ("evaluation", {"forward", "evaluation"}),
    ):
        (row,) = bench(["pidnet-s"], BenchPlan(size=(64, 64), batch=1, repeats=1, only=only), CPU)
        assert set(row.timings) == actions
        assert set(row.ratios) == {only}
        assert (row.step_memory is None) == (only == "evaluation")
    with pytest.raises(BadInput, match="only must be step or evaluation, got 'stpe'"):
        BenchPlan(only="stpe")


def test_the_command_prints_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    line = (
        "segpatch bench --network pidnet-s --size 64 --repeats 1 --batch-size 1 --only evaluation --json --quiet"
    )
    monkeypatch.setattr("sys.argv", line.split())
    with pytest.raises(SystemExit, match=r"^0$"):
        main()
    done = capsys.readouterr()
    facts = json.loads(done.out)
    assert (facts["plan"]["size"], facts["plan"]["only"], done.err) == ([64, 64], "evaluation", "")
    assert facts["environment"]["versions"]["torch"] == torch.__version__
    assert [row["network"] for row in facts["rows"]] == ["pidnet-s"]


def test_a_reference_has_no_place_in_a_measurement():
    plan = BenchPlan(size=(64, 64), batch=1, repeats=1, only="evaluation")
    with pytest.raises(BadInput, match="leave --against or --only evaluation out"):
        bench(["pidnet-s"], plan, CPU, load_reference(NAIVE))


def test_a_reference_is_a_file_with_a_step(tmp_path):
    with pytest.raises(Missing, match="no file at"):
        load_reference(tmp_path / "absent.py")
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(BadInput, match="has no function step"):
        load_reference(tmp_path / "empty.py")


def test_the_naive_step_goes_where_ours_goes():
    """Same patch after a step on the same images: it is the same attack, only slower."""
    from segpatch.attack_config import AttackConfig
    from segpatch.attack_step import draw_samples, patch_gradient
    from segpatch.models.networks import MODELS
    from segpatch.models.victim import Victim
    from segpatch.patch import FULL_RANGE, random_pixels
    from segpatch.updates import sign_step

    torch.manual_seed(0)
    module = MODELS["pidnet-s"].default.build(19, auxiliary=False)
    victim = Victim(module, size_multiple=8, align_corners=True)
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    labels = (
        victim(images.float() / 255).argmax(1).to(torch.uint8)
    )  # all right, so that there is something to lose
    pixels = random_pixels((16, 16), FULL_RANGE, 0)
    config = AttackConfig(steps=1, batch_size=2, crop=(64, 64), patch_size=(16, 16), scales=(1.0, 1.0), flip=0.0)
    decoded = list(zip(images, labels, strict=True))
    gradient, _ = patch_gradient([victim], pixels, config, lambda: draw_samples(decoded, [0, 1], 0, config))
    ours = sign_step(pixels, gradient, 0.005, torch.zeros(3), torch.ones(3))
    theirs = load_reference(NAIVE)(victim, images, labels, pixels)
    assert (ours - theirs).abs().gt(1e-6).float().mean() < 0.01  # signs of gradients that are nearly 0


def test_the_parts_of_a_step_are_the_step(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(NAIVE.parent)
    import parts

    before = [getattr(owner, name) for owner, name in parts.PARTS.values()]
    found = parts.parts("pidnet-s", BenchPlan(size=(64, 96), batch=1, repeats=1, only="step"))
    assert set(found) == {*parts.PARTS, "rest", "step", "bare backward"} and min(found.values()) > 0
    assert sum(found[part] for part in (*parts.PARTS, "rest")) == pytest.approx(found["step"])
    assert found["bare backward"] < 1
    assert before == [getattr(owner, name) for owner, name in parts.PARTS.values()]
