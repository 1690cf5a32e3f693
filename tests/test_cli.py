from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from segpatch.cli import main
from segpatch.data import CITYSCAPES
from segpatch.models.checkpoints import write_network
from segpatch.models.networks import MODELS
from segpatch.patch import grey_patch, load_patch, save_patch
from tiny import TINY_SPEC, Tiny, write_learnable

SIZE = (48, 64)
SHORT = ["--steps", "2", "--batch-size", "1", "--patch-size", "4"]
COMMANDS = ["demo", "models", "data", "fit", "attack", "evaluate", "transfer", "report", "patch", "show", "study"]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Call = Callable[..., Outcome]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """Runs a command line in this process."""
    monkeypatch.setattr("segpatch.studies.matrix.write_report", lambda run, out, **how: None)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["segpatch", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main()
        return Outcome(int(stop.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two random networks and a data set of six tiny images in the classes of Cityscapes."""
    root = tmp_path_factory.mktemp("cli")
    for seed, name in enumerate(("one", "two")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            write_network(
                root / f"{name}.safetensors", MODELS["segformer-b0"].default.build(19, auxiliary=False), {}
            )
    write_learnable(root / "data", train=3, val=2, classes="\n".join(CITYSCAPES.names), size=SIZE)
    write_learnable(root / "three", train=1, val=1, size=SIZE)
    return root


@pytest.fixture
def victim(place: Path) -> list[str]:
    return ["--victim", f"segformer-b0={place}/one.safetensors"]


@pytest.fixture
def given(place: Path, victim: list[str]) -> list[str]:
    return [*victim, "--data", f"folder:{place}/data"]


@pytest.fixture
def attack(given: list[str]) -> list[str]:
    return ["attack", *given, *SHORT]


def test_attack_evaluate_transfer(
    call: Call, place: Path, tmp_path: Path, attack: list[str], given: list[str], monkeypatch: pytest.MonkeyPatch
):
    done = call(*attack, "--out", tmp_path / "a")
    assert done.code == 0
    assert done.out.startswith(f"segformer-b0/paper/s0: 4x4 patch after 2 steps in {tmp_path}/a\n")
    assert "attack segformer-b0/paper/s0: 2/2" in done.err and "took" in done.err

    done = call("evaluate", "--patch", tmp_path / "a", *given, "--out", tmp_path / "e", "--json", "--quiet")
    result = json.loads(done.out)
    assert (done.code, done.err) == (0, "")
    assert [p["name"] for p in result["patches"]][-1] == "segformer-b0/paper/s0"
    assert result["command"].startswith("segpatch evaluate --patch ")

    both = [*given, "--victim", f"segformer-b0={place}/two.safetensors"]
    asked = ["transfer", *both, *SHORT, "--patch", tmp_path / "a", "--preset", "paper", "--out", tmp_path / "t"]
    done = call(*asked)
    assert done.code == 0
    head = next(line for line in done.out.splitlines() if line.startswith("patch "))
    assert head.split() == ["patch", "segformer-b0:one", "segformer-b0:two"]
    assert "segformer-b0:two/paper/s0" in done.out and f"results: {tmp_path}/t/transfer.json" in done.out
    assert "measure: 2/2" in done.err
    assert "People and riders" not in done.out, "no pixel of these labels is a person's"
    monkeypatch.setattr("segpatch.report.fates.PEOPLE", {"road"})
    assert call(*asked, "--resume").out.splitlines()[-2].startswith("People and riders: ")
    lines = (tmp_path / "t/transfer.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * 7


def test_attack_prints_json(call: Call, tmp_path: Path, attack: list[str]):
    done = call(*attack, "--out", tmp_path / "a", "--json", "--quiet", "--seed", 3)
    assert (done.code, done.err) == (0, "")
    facts = json.loads(done.out)
    assert facts["sha256"] == load_patch(tmp_path / "a").sha256()
    assert (facts["seed"], facts["steps"], facts["out"]) == (3, 2, f"{tmp_path}/a")
    assert isinstance(facts["warnings"], list)


def test_interrupt_and_resume(call: Call, tmp_path: Path, attack: list[str], monkeypatch: pytest.MonkeyPatch):
    def stop(progress) -> None:
        raise KeyboardInterrupt

    call(*attack, "--out", tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr("segpatch.cli.train.ProgressPrinter", lambda quiet: stop)
        done = call(*attack, "--out", tmp_path / "a")
    assert done.code == 130 and "--resume goes on" in done.err
    done = call(*attack, "--out", tmp_path / "a", "--resume")
    assert done.code == 0
    assert load_patch(tmp_path / "a").sha256() == load_patch(tmp_path / "whole").sha256()
    finished = call(*attack, "--out", tmp_path / "a", "--resume")
    assert finished == Outcome(0, done.out, "")


def test_study_paper(call: Call, place: Path, tmp_path: Path, given: list[str], monkeypatch: pytest.MonkeyPatch):
    short = [*SHORT, "--seeds", "0", "--preset", "paper", "--only", "alignment", "--out", tmp_path / "s"]
    given = [*given, "--victim", f"segformer-b0={place}/two.safetensors"]
    (tmp_path / "plan.toml").write_text("draws = 4\nsnapshots = 1\nseeds = [0, 1, 2]\n")
    asked = ["study", "paper", *given, *short, "--config", tmp_path / "plan.toml"]
    planned = call(*asked, "--dry-run")
    assert "alignment, 4 cells" in planned.out and "in all about" in planned.out and not (tmp_path / "s").exists()
    done = call(*asked)
    assert "alignment, 4 cells: about" in done.err.partition("attack")[0], "said before it starts"
    assert "patches to train: 2, matrices to measure: 1, other cells: 4" in done.err
    left = call(*asked, "--dry-run", "--resume").out.splitlines()
    assert left[0] == "patches to train: 0, matrices to measure: 0, other cells: 0"
    assert (done.code, done.out.splitlines()[-1].split(";")[0]) == (0, f"results: {tmp_path}/s/study.json")
    assert "a `paper` patch breaks its own network" in done.out and "not run: " in done.out
    warnings = [line.removeprefix("warning: ") for line in done.out.splitlines() if line.startswith("warning: ")]
    page = (tmp_path / "s/report/index.html").read_text()
    assert warnings and "Before you read the numbers" in page and f"{len(warnings)} warnings" in page
    again = call(*asked, "--resume", "--json")
    assert json.loads(again.out)["warnings"] == warnings and not again.err
    assert list(json.loads(again.out)["cells"]) == list(
        json.loads((tmp_path / "s/study.json").read_text())["cells"]
    )
    assert call("report", tmp_path / "s", "--out", tmp_path / "again").code == 0
    assert (tmp_path / "again/index.html").read_bytes() == (tmp_path / "s/report/index.html").read_bytes()
    two = ("report", tmp_path / "s", tmp_path / "s", "--out", tmp_path / "two")
    assert call(*two, "--fail-on-drop", "0").code == 0, "a study does not lose more than itself"
    assert (tmp_path / "two/comparison.csv").is_file()
    stopped = call("report", tmp_path / "s", "--out", tmp_path / "gate", "--fail-on-drop", "-1")
    assert stopped.code == 1 and stopped.err.count("\n") == 1 and "surely lose more than -1 mIoU" in stopped.err
    assert "report takes one run, or two" in call(*two, tmp_path / "s").err
    assert "--with-images is for the page of one run" in call(*two, "--with-images").err


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("drews = 4", "unknown field in plan.toml 'drews'; did you mean 'draws'?"),
        ("draws = 'many'", "plan.toml: draws: Input should be a valid integer"),
        ("draws = ", "is no TOML file"),
        ("only = ['curvs']", "did you mean 'curves'?"),
    ],
)
def test_a_study_file_that_cannot_be_used(call: Call, tmp_path: Path, given: list[str], plan: str, message: str):
    (tmp_path / "plan.toml").write_text(plan)
    done = call("study", "paper", *given, "--config", tmp_path / "plan.toml", "--out", tmp_path / "s")
    assert done.code == 1 and message in done.err and len(done.err.splitlines()) == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("grid", ["5", "5x", "0x9", "axb", "5x9x2", "-1x3"])
def test_a_grid_that_cannot_be(call: Call, tmp_path: Path, given: list[str], grid: str):
    done = call("study", "paper", *given, f"--grid={grid}", "--out", tmp_path / "s")
    assert (done.code, done.err) == (
        1,
        f"segpatch: --grid is rows x columns of places, such as 5x9; got {grid!r}\n",
    )


def test_the_grid_of_a_study(call: Call, tmp_path: Path, given: list[str]):
    asked = ["study", "paper", *given, *SHORT, "--seeds", "0", "--preset", "paper", "--only", "places"]
    assert call(*asked, "--grid", "2x3", "--out", tmp_path / "s").code == 0
    study = json.loads((tmp_path / "s/study.json").read_text())
    (cell,) = study["cells"].values()
    assert study["plan"]["grid"] == [2, 3] and len(cell["places"]) == 6


def test_as_released_needs_cityscapes(call: Call, tmp_path: Path, given: list[str]):
    done = call("study", "paper", *given, "--as-released", "--out", tmp_path / "s")
    assert done.code == 1 and "--as-released is of Cityscapes" in done.err


def test_a_finished_transfer_is_printed_again(call: Call, tmp_path: Path, given: list[str]):
    transfer = ["transfer", *given, *SHORT, "--out", tmp_path / "t", "--pictures", 0]
    done = call(*transfer)
    again = call(*transfer, "--resume")
    assert (again.code, again.out, again.err) == (0, done.out, "")
    assert call(*transfer).code == 1


def test_overwrite(call: Call, tmp_path: Path, attack: list[str]):
    call(*attack, "--out", tmp_path / "a")
    assert call(*attack, "--out", tmp_path / "a", "--seed", 1, "--overwrite").code == 0
    assert load_patch(tmp_path / "a").seed == 1


def test_dry_run_writes_nothing(call: Call, tmp_path: Path, attack: list[str], given: list[str]):
    done = call(*attack, "--out", tmp_path / "a", "--dry-run")
    assert done.code == 0 and "segformer-b0/paper/s0, 2 steps: about " in done.out
    done = call("transfer", *given, *SHORT, "--seeds", "0,1", "--out", tmp_path / "t", "--dry-run")
    assert done.code == 0 and "measure 6 rows on segformer-b0, 2 images: about " in done.out
    assert "minutes and" in done.out and "GiB of memory" in done.out
    recipe = ["--steps", 500, "--batch-size", 1, "--crop", 32, "--validate-every", 200]
    done = call("fit", "--model", "segformer-b0", *recipe, *given[-2:], "--out", tmp_path / "f", "--dry-run")
    assert done.code == 0 and "fit segformer-b0, 500 steps: about " in done.out
    assert "validate 3 times on 2 images: about " in done.out
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_a_measurement(call: Call, tmp_path: Path, given: list[str]):
    save_patch(grey_patch((8, 8)), tmp_path / "p.safetensors")
    before = set(tmp_path.iterdir())
    done = call("evaluate", "--patch", tmp_path / "p.safetensors", *given, "--out", tmp_path / "e", "--dry-run")
    assert done.code == 0 and "measure 5 rows on segformer-b0, 2 images: about " in done.out
    assert set(tmp_path.iterdir()) == before


def test_fit_gives_a_victim(call: Call, place: Path, tmp_path: Path):
    recipe = ["--steps", 1, "--batch-size", 1, "--crop", 32, "--images", 1, "--data", f"folder:{place}/three"]
    done = call("fit", "--model", "segformer-b0", *recipe, "--out", tmp_path / "f", "--json", "--quiet")
    assert (done.code, done.err) == (0, "")
    assert 0 <= json.loads(done.out)["clean_miou"] <= 1
    data = ["--data", f"folder:{place}/three"]
    assert call("attack", "--victim", tmp_path / "f", *data, *SHORT, "--out", tmp_path / "a").code == 0
    assert load_patch(tmp_path / "a").trained_on == ("segformer-b0",)


def test_data_make_and_check(call: Call, tmp_path: Path):
    size = ["--height", 32, "--width", 64]
    done = call("data", "make", "streets", "--out", tmp_path / "s", "--train", 2, "--val", 1, *size)
    assert done.code == 0 and f"use --data streets:{tmp_path}/s" in done.out
    done = call("data", "check", f"streets:{tmp_path}/s", "--quiet")
    assert (done.code, done.err) == (0, "") and "no problem found" in done.out
    next((tmp_path / "s").rglob("*_leftImg8bit.png")).write_bytes(b"x")
    done = call("data", "check", f"streets:{tmp_path}/s", "--quiet")
    assert done.code == 1 and "_leftImg8bit.png" in done.out
    assert call("data", "make", "streats", "--out", tmp_path / "t").err.startswith("segpatch: unknown procedural")


def test_models_and_patches_as_things(call: Call, place: Path, tmp_path: Path, attack: list[str]):
    listed = json.loads(call("models", "--json").out)["models"]
    assert {"name", "shipped", "family", "classes", "parameters", "checkpoints"} <= listed[0].keys()
    assert {entry["name"] for entry in listed} == MODELS.keys()
    assert call("models").out.splitlines()[0].startswith("network ")
    done = call("models", "check", "segformer-b0", place / "one.safetensors")
    assert done.code == 0 and "fits segformer-b0: 19 classes" in done.out
    done = call("models", "check", "bisenetv2", place / "one.safetensors")
    assert done.code == 1 and "in no layout of it" in done.out and "looks like segformer-b0" in done.err
    assert call("models", "--published").out.splitlines()[0].startswith("checkpoint ")
    call(*attack, "--out", tmp_path / "a")
    assert "segformer-b0/paper/s0" in call("patch", "list", tmp_path).out
    shown = json.loads(call("patch", "show", tmp_path / "a", "--json").out)
    assert shown["origin"]["config"]["steps"] == 2
    assert call("patch", "list", place).code == 1


def test_a_patch_in_and_out_of_a_picture(call: Call, tmp_path: Path, attack: list[str], given: list[str]):
    call(*attack, "--out", tmp_path / "a")
    done = call("patch", "export", tmp_path / "a", "--out", tmp_path / "p.png")
    assert done.code == 0 and "segformer-b0/paper/s0 in 8 bits, which change a value by 0." in done.out
    again = ["patch", "export", tmp_path / "a", "--out", tmp_path / "p.png"]
    assert call(*again).code == 1 and call(*again, "--overwrite").code == 0
    assert call("patch", "export", tmp_path / "a", "--out", tmp_path / "p.jpg").code == 1
    measured = call(
        "evaluate", *given, "--patch", tmp_path / "p.png", "--out", tmp_path / "e", "--json", "--quiet"
    )
    (cell,) = [c for c in json.loads(measured.out)["cells"] if c["patch"] == "png/segformer-b0/paper/s0"]
    assert cell["white_box"]
    (entry,) = [e for e in json.loads(call("patch", "list", tmp_path, "--json").out)["patches"]
                if e["name"].startswith("png/")]  # fmt: skip
    assert entry["file"] == "p.png" and entry["measured"][0]["drop"] == cell["miou_drop"]
    low, high = cell["ci95"]
    line = f"{cell['miou_drop']:.3f} [{low:.3f}, {high:.3f}]".replace("-0.000", "0.000")
    assert line in call("patch", "list", tmp_path, "--sort", "drop").out
    done = call("patch", "show", tmp_path / "a", *given, "--images", 2)
    assert done.code == 0 and f"of the PNG    {line}; it lacks " in done.out and "on 2 images" in done.out
    assert call("patch", "list", tmp_path, "--sort", "size").code == 1
    done = call("patch", "show", tmp_path / "a", "--data", "streets")
    assert done.code == 2 and "give both --data and --victim, or neither" in done.err


def test_a_table_fits_a_terminal_and_prints_no_control_codes(monkeypatch: pytest.MonkeyPatch):
    from segpatch.cli.tables import print_table

    rows = [["a\x1b[31m", "one\ntwo"], ["x" * 100, ""]]
    for terminal in (False, True):
        out = io.StringIO()
        monkeypatch.setattr(out, "isatty", lambda terminal=terminal: terminal)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setenv("TERM", "dumb")  # 80 columns, no bold
        print_table(["patch", "drop"], rows)
        text = out.getvalue()
        assert "a?[31m" in text and "\x1b" not in text and text.count("x") == 100
        assert ("one; two" in text) == (not terminal)
        assert max(map(len, text.splitlines())) <= (80 if terminal else 120)


def test_victims_from_a_file(call: Call, place: Path, tmp_path: Path):
    data = ["--data", f"folder:{place}/data"]
    (place / "victims.toml").write_text(
        '[victim.first]\nnetwork = "segformer-b0"\ncheckpoint = "one.safetensors"\nmean = [0.5, 0.5, 0.5]\n'
        '[victim.second]\nnetwork = "segformer-b0"\ncheckpoint = "two.safetensors"\n'
    )
    file = ["--victims", place / "victims.toml"]
    done = call("attack", *file, *data, *SHORT, "--out", tmp_path / "a", "--quiet")
    assert done.code == 0 and load_patch(tmp_path / "a").trained_on == ("first", "second")
    done = call("evaluate", *file, "--patch", tmp_path / "a", *data, "--out", tmp_path / "e")
    assert done.code == 1 and "names first, second; choose one with --victim" in done.err
    chosen = [*file, "--victim", "first", *data, "--out", tmp_path / "e", "--quiet", "--json"]
    done = call("evaluate", "--patch", tmp_path / "a", *chosen)
    (measured,) = json.loads(done.out)["victims"]
    assert (measured["name"], measured["preprocessing"]["mean"]) == ("first", [0.5, 0.5, 0.5])
    text = (place / "victims.toml").read_text()
    (place / "victims.toml").write_text(text.replace("mean = [0.5", "mean = [0.4"))
    done = call("evaluate", "--patch", tmp_path / "a", *chosen, "--resume")
    assert done.code == 1 and "holds a run with another victims" in done.err
    assert call("show", *file, "--victim", "second", *data, "--out", tmp_path / "s.png").code == 0
    done = call("attack", *data, *SHORT, "--out", tmp_path / "b")
    assert done.code == 2 and "give --victim, or --victims FILE" in done.err


def test_export_and_measure_without_gradients(
    call: Call, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(MODELS, "tiny", TINY_SPEC)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        write_network(tmp_path / "own.safetensors", Tiny(19), {})
    network, data = f"tiny={tmp_path}/own.safetensors", ["--data", f"folder:{place}/data"]
    done = call("models", "export", network, "--out", tmp_path / "net.onnx", "--size", f"{SIZE[0]}x{SIZE[1]}")
    assert done.code == 0 and "tiny for images of 48x64" in done.out
    graph = ["--victim", f"onnx:{tmp_path}/net.onnx", *data]
    done = call("attack", *graph, *SHORT, "--out", tmp_path / "a")
    assert done.code == 1 and "net is for evaluation only" in done.err and not (tmp_path / "a").exists()
    both = ["transfer", "--victim", network, *graph, *SHORT, "--out", tmp_path / "t", "--json", "--quiet"]
    result = json.loads(call(*both).out)
    assert [p["name"] for p in result["patches"] if p["kind"] == "trained"] == ["tiny/paper/s0"]
    own, exported = ([c["iou"] for c in result["cells"] if c["victim"] == name] for name in ("tiny", "net"))
    assert own == exported


# What a user gets wrong, as arguments that replace or follow those of an attack, and what the line must say.
WRONG = [
    (["--data", "folder:/nowhere"], "/nowhere"),
    (["--patch-size", "49"], "49x49 patch does not fit crops of 48x48"),
    (["--patch-size", "4by4"], "a size is HxW"),
    (["--preset", "relaesed"], "did you mean 'released'"),
    (["--loss", "cros-entropy"], "did you mean 'cross-entropy'"),
    (["--place", "center"], "did you mean 'centre'"),
    (["--device", "cuda:99"], "CUDA devices; use cpu"),
    (["--device", "gpu"], "--device must be"),
    (["--images", "0"], "image"),
    (["--victim", "segfromer-b0"], "did you mean 'segformer-b0'"),
    (["--victim", "runs/absent"], "no such run directory"),
    (["--victim", "segformer-b0=absent.pth"], "no checkpoint at absent.pth"),
    (["--victim", "bisenetv2={place}/two.safetensors"], "is no bisenetv2 checkpoint"),
    (["--victim", "segformer-b0={place}/one.safetensors"], "given twice"),
    (["--data", "folder:{place}/three"], "no class map from the 19 classes of cityscapes"),
]


@pytest.mark.parametrize(("extra", "words"), WRONG)
def test_what_the_user_can_mend_is_one_line(
    call: Call, place: Path, tmp_path: Path, attack: list[str], extra: list[str], words: str
):
    done = call(*attack, *(part.format(place=place) for part in extra), "--out", tmp_path / "a")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("segpatch: ") and done.err.count("\n") == 1
    assert words in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("value", "height", "words"), [(77, 48, "has label value 77"), (0, 40, "but its label")])
def test_bad_labels_are_one_line(
    call: Call, tmp_path: Path, victim: list[str], value: int, height: int, words: str
):
    from fabricate import write_labels

    data = ["--data", write_learnable(tmp_path / "data", classes="\n".join(CITYSCAPES.names), size=SIZE)]
    for index in range(1, 6):  # the first one is looked at before a run is opened
        write_labels(tmp_path / f"data/labels/train/train{index}.png", value, height=height, width=64)
    fit = ["fit", "--model", "segformer-b0", *data, "--steps", 1, "--crop", 32]
    for command in (["attack", *victim, *data, *SHORT], ["transfer", *victim, *data, *SHORT], fit):
        done = call(*command, "--batch-size", 6, "--quiet", "--out", tmp_path / "a")
        assert done.code == 1 and words in done.err and done.err.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_bad_label_met_later_leaves_no_run_that_bars_the_next(call: Call, tmp_path: Path, victim: list[str]):
    from fabricate import write_labels

    data = ["--data", write_learnable(tmp_path / "data", classes="\n".join(CITYSCAPES.names), size=SIZE)]
    write_labels(tmp_path / "data/labels/train/train3.png", 77, height=48, width=64)
    short = ["--batch-size", 1, "--steps", 6, "--patch-size", 4, "--crop", "32x32"]
    for _ in range(2):
        done = call("attack", *victim, *data, *short, "--out", tmp_path / "a")
        assert done.code == 1 and "attack segformer-b0/paper/s0: 1/6" in done.err
        assert "train3.png has label value 77" in done.err.splitlines()[-1]
        assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_folder_that_is_taken_is_left_alone(call: Call, tmp_path: Path, attack: list[str]):
    call(*attack, "--out", tmp_path / "a")
    before = load_patch(tmp_path / "a").sha256()
    done = call(*attack, "--out", tmp_path / "a", "--seed", 1)
    assert done.code == 1 and "already holds a run; use --resume, --overwrite or another --out" in done.err
    assert load_patch(tmp_path / "a").sha256() == before
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/dear.txt").write_text("x")
    done = call(*attack, "--out", tmp_path / "letters", "--overwrite")
    assert done.code == 1 and "is no segpatch run" in done.err
    assert [path.name for path in (tmp_path / "letters").iterdir()] == ["dear.txt"]


@pytest.mark.parametrize(
    "line", [["attack"], ["atack"], ["attack", "--stepps", "3"], ["transfer", "--images", "many"], ["patch"]]
)
def test_usage_errors_exit_with_2(call: Call, line: list[str]):
    done = call(*line)
    assert done.code == 2 and "Usage" in done.out + done.err and "Traceback" not in done.err


def test_a_bug_keeps_its_traceback(call: Call, attack: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr("segpatch.studies.attack.train_patch", lambda *a, **k: 1 / 0)
    monkeypatch.setattr(sys, "argv", ["segpatch", *attack, "--out", str(tmp_path / "a")])
    with pytest.raises(ZeroDivisionError):
        main()


def test_help_lists_every_command_without_torch():
    code = "import sys; import segpatch.cli; sys.argv = ['segpatch', '--help']\ntry: segpatch.cli.main()\n"
    code += "finally: print('torch' in sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "False")
    listed = [line.strip("│ ").split(" ")[0] for line in done.stdout.splitlines()]
    assert set(COMMANDS) <= set(listed)


def test_a_run_gone_on_with_records_the_command_that_began_it(monkeypatch: pytest.MonkeyPatch):
    from segpatch.cli.measure import typed_command

    for more in ([], ["--resume"], ["--overwrite"]):
        monkeypatch.setattr(sys, "argv", ["/bin/segpatch", "transfer", "--out", "a b", *more, "--json"])
        assert typed_command() == "segpatch transfer --out 'a b' --json"
