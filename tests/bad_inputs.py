"""What a user can do wrong: a table of bad inputs, each with its command and words of its one-line error."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from safetensors.torch import save

from fabricate import write_cityscapes
from segpatch.patch import grey_patch, save_patch

Make = Callable[[Path], object]


class Bad(NamedTuple):
    """make: spoils a folder that holds data/ and patch.safetensors; {} in the command is that folder."""

    name: str
    make: Make
    command: str
    words: str


class Hostile:
    """A pickle that would leave a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.file}",)


def nothing(_: Path) -> None:
    """As it is."""


def text(file: str, content: str) -> Make:
    return lambda root: (root / file).write_text(content)


def raw(file: str, content: bytes) -> Make:
    return lambda root: (root / file).write_bytes(content)


def hostile(root: Path) -> None:
    (root / "c.pth").write_bytes(pickle.dumps({"state_dict": Hostile(root / "ran")}, protocol=2))


def hostile_archive(root: Path) -> None:
    torch.save({"state_dict": Hostile(root / "ran")}, root / "c.pth")


def picture(mode: str, size: tuple[int, int] = (6, 4), file: str = "images/val/val0.png") -> Make:
    return lambda root: Image.new(mode, size).save(root / "data" / file)


def patch_about(**about: object) -> Make:
    def make(root: Path) -> None:
        content = save({"pixels": torch.full((3, 2, 2), 0.5)}, metadata={"segpatch": json.dumps(about)})
        (root / "patch.safetensors").write_bytes(content)

    return make


def patch_of_record(record: str) -> Make:
    content = save({"pixels": torch.full((3, 2, 2), 0.5)}, metadata={"segpatch": record})
    return raw("patch.safetensors", content)


def network_about(record: str) -> Make:
    return raw("c.safetensors", save({"a": torch.ones(1)}, metadata={"segpatch": record}))


def png(root: Path) -> None:
    Image.new("RGB", (2, 2)).save(root / "p.png")


def named(root: Path) -> None:
    for kind in ("images", "labels"):
        (root / f"data/{kind}/val/a\nsegpatch: all is well\x1b[1m.png").write_bytes(b"no")


def jpeg(root: Path) -> None:
    Image.new("L", (6, 4)).save(root / "data/labels/val/val0.png", "JPEG")


def patch_of(pixels: torch.Tensor, key: str = "pixels") -> Make:
    return lambda root: (root / "patch.safetensors").write_bytes(save({key: pixels}))


def gone(file: str) -> Make:
    return lambda root: (root / file).unlink()


def link(root: Path) -> None:
    (root / "data/images/val/val0.png").unlink()
    (root / "data/images/val/val0.png").symlink_to("nowhere")


def link_out(root: Path) -> None:
    (root / "r").mkdir()
    (root / "r/transfer.json").symlink_to(root / "data/classes.txt")


def pipe(file: str) -> Make:
    def make(root: Path) -> None:
        (root / file).parent.mkdir(exist_ok=True)
        os.mkfifo(root / file)

    return make


def huge(file: str) -> Make:
    """A file of 100 GB, which takes no room on the disk."""

    def make(root: Path) -> None:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).touch()
        os.truncate(root / file, 100 * 1000**3)

    return make


def loop(file: str) -> Make:
    def make(root: Path) -> None:
        (root / file).parent.mkdir(exist_ok=True)
        (root / file).symlink_to(root / file)

    return make


def listed_pipe(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    (root / "l.txt").write_text("pipe.png pipe.png\n")


def finished_attack(root: Path) -> None:
    (root / "r").mkdir()
    (root / "patch.safetensors").rename(root / "r/patch.safetensors")


def empty_split(root: Path) -> None:
    for file in (root / "data/images/val").iterdir():
        file.unlink()


def folder(name: str, **files: str) -> Make:
    def make(root: Path) -> None:
        (root / name).mkdir()
        for file, content in files.items():
            (root / name / file.replace("_", ".")).write_text(content)

    return make


def towns(root: Path) -> None:
    for split in ("train", "val"):
        write_cityscapes(root / "c", split, "aachen", 0)


def towns_and_plan(plan: str) -> Make:
    def make(root: Path) -> None:
        towns(root)
        (root / "p.toml").write_text(plan)

    return make


CHECK = "models check pidnet-s {}/c.pth"
SHOW = "patch show {}/patch.safetensors"
DRY = "attack --victim pidnet-s --data folder:{}/data --train-split val --out {}/out"
FILE = "attack --victims {}/v.toml --data folder:{}/data --out {}/out"
RUN = "attack --victim pidnet-s --data folder:{}/data --train-split val --patch-size 2 --crop 4 --steps 2"
REPORT = "report {}/r --out {}/out"
LONG = "x" * 300
STUDY = "study paper --victim pidnet-s --data streets --config {}/p.toml --out {}/out"
ON = "--victim pidnet-s --data folder:{}/data"
SHOWN = f"show {ON} --out {{}}/out.png"
HUGE = "9" * 40
NUMBERS = {
    "fit --model pidnet-s --data streets": {
        "--steps 0": "steps must be a whole number from 1 to 1000000000, got 0",
        f"--steps {HUGE}": f"steps must be a whole number from 1 to 1000000000, got {HUGE}",
        "--batch-size -1": "batch_size must be a whole number from 1",
        "--crop 20000": "each side of crop must be a whole number from 1 to 16384, got 20000",
        "--crop 9000": "crop may hold 64 million pixels, got 9000x9000",
        "--crop 0": "a size is HxW or one side in pixels, such as 60x80 or 70; got '0'",
        "--scales nan,nan": "each of scales must be in (0, 100], got nan",
        "--scales 1,inf": "each of scales must be in (0, 100], got inf",
        "--scales 2,1": "scales must be (low, high) or a list",
        "--learning-rate nan": "learning_rate must be in (0, 10], got nan",
        "--learning-rate -1": "learning_rate must be in (0, 10], got -1",
        "--learning-rate 1e308": "learning_rate must be in (0, 10], got 1e+308",
        "--jitter nan": "jitter must be in [0, 1), got nan",
        "--label-stride 0": "label_stride must be a whole number from 1 to 256, got 0",
        "--label-stride 257": "label_stride must be a whole number from 1 to 256, got 257",
        "--warmup -4": "warmup must be a whole number from 0",
        "--averaging nan": "averaging must be in [0, 1), got nan",
        "--averaging 2": "averaging must be in [0, 1), got 2",
        "--validate-every 0": "validate_every must be a whole number from 1",
        "--images -1": "the number of images must be a whole number from 1",
        "--seed -1": "seed must be a whole number from 0 to 4294967295, got -1",
        f"--seed {HUGE}": "seed must be a whole number from 0 to 4294967295",
        f"--device cuda:{HUGE}": "--device must be auto, cpu, cuda or cuda:N",
    },
    "attack --victim pidnet-s --data streets": {
        "--steps -1": "steps must be a whole number from 1",
        "--epochs 0": "epochs must be a whole number from 1",
        "--batch-size 65537": "batch_size must be a whole number from 1 to 65536, got 65537",
        "--micro-batch 0": "micro_batch must be a whole number from 1",
        f"--crop {HUGE}": f"each side of crop must be a whole number from 1 to 16384, got {HUGE}",
        f"--patch-size {'9' * 5000}": f"a size is HxW or one side in pixels, such as 60x80 or 70; got '{HUGE}'",
        "--images -1": "the number of images must be a whole number from 1",
        "--seed -1": "seed must be a whole number",
    },
    "transfer --victim pidnet-s --data streets": {
        "--margin nan": "margin must be in [0, 1], got nan",
        "--margin inf": "margin must be in [0, 1], got inf",
        "--margin -1": "margin must be in [0, 1], got -1",
        "--pictures -5": "pictures must be a whole number from 0",
        "--images 0": "the number of measured images must be a whole number from 1",
        "--train-images 0": "the number of training images must be a whole number from 1",
        f"--seeds {HUGE}": "seed must be a whole number from 0 to 4294967295",
        "--seeds 1,1": "seeds must be one or more, and different; got (1, 1)",
        "--steps 0": "steps must be a whole number from 1",
    },
    "evaluate --patch {}/patch.safetensors --victim pidnet-s --data streets": {
        "--seed -1": "seed must be a whole number",
        "--precision fp64": "precision must be fp32 or bf16, got 'fp64'",
    },
    "data make streets": {
        f"--train {HUGE}": f"train must be a whole number from 0 to 1000000, got {HUGE}",
        "--val -1": "val must be a whole number from 0 to 1000000, got -1",
        "--height 9": "the height of a street must be a whole number from 16 to 16384, got 9",
        "--width 99999999": "the width of a street must be a whole number from 16 to 16384",
        "--seed -1": "seed must be a whole number",
    },
}

RELEASED = "study paper --victim pidnet-s --data cityscapes:{}/c --out {}/out --as-released"
PLAN = "study paper --victim pidnet-s --data cityscapes:{}/c --config {}/p.toml --out {}/out"
PLANNED = f"{PLAN} --as-released"

BAD = [
    Bad("data of no kind", nothing, "data check nonsense", "nonsense"),
    Bad("data of an unknown kind", nothing, "data check camvit:x", "camvi"),
    Bad("folder that is not there", nothing, "data check folder:{}/none", "classes.json"),
    Bad("camvid that is not there", nothing, "data check camvid:{}/none", "none"),
    Bad("cityscapes that is not there", nothing, "data check cityscapes:{}/none", "none"),
    Bad("streets that are not there", nothing, "data check streets:{}/none", "none"),
    Bad("list that is not there", nothing, "data check list:{}/none", "expected a file"),
    Bad("empty list", text("l.txt", "# nothing\n"), "data check list:{}/l.txt", "lists no image"),
    Bad("list of three columns", text("l.txt", "a b c\n"), "data check list:{}/l.txt", "line 1"),
    Bad(
        "list of a path without a name",
        text("l.txt", ". a\n. a\n"),
        "data check list:{}/l.txt",
        "line 1: expected",
    ),
    Bad("list that is no text", raw("l.txt", b"\xff\xfe\x00"), "data check list:{}/l.txt", "not a text file"),
    Bad("no classes", gone("data/classes.txt"), "data check folder:{}/data", "classes.json or classes.txt"),
    Bad("classes that are no JSON", text("data/classes.json", "{"), "data check folder:{}/data", "cannot be used"),
    Bad("classes of a wrong type", text("data/classes.json", "7"), "data check folder:{}/data", "cannot be used"),
    Bad(
        "classes with an id twice",
        text("data/classes.json", '[{"id":1,"name":"a"},{"id":1,"name":"b"}]'),
        "data check folder:{}/data",
        "different numbers",
    ),
    Bad(
        "classes that are nested too deep",
        text("data/classes.json", "[" * 100_000),
        "data check folder:{}/data",
        "cannot",
    ),
    Bad("images beside splits", picture("RGB", file="images/x.png"), "data check folder:{}/data", "sort them"),
    Bad("split that is not there", nothing, DRY.replace("split val", "split vall"), "has no split 'vall'"),
    Bad("image of 16 bits", picture("I;16"), DRY, "more than 8 bits"),
    Bad("image of another size than its label", picture("RGB", (9, 9)), DRY, "9x9 but its label"),
    Bad("image that is too wide", picture("1", (20_000, 1)), DRY, "not decoded"),
    Bad("image that is none", raw("data/images/val/val0.png", b"no"), DRY, "cannot be read as an image"),
    Bad(
        "image whose name writes lines",
        named,
        DRY,
        "a; segpatch: all is well?[1m.png cannot be",
    ),
    Bad("image that is empty", raw("data/images/val/val0.png", b""), DRY, "cannot be read as an image"),
    Bad("link to nothing", link, DRY, "link to nothing"),
    Bad("split without images", empty_split, DRY, "holds no image"),
    Bad("label in colours", picture("RGB", file="labels/val/val0.png"), DRY, "is a RGB picture"),
    Bad("label of one bit", picture("1", file="labels/val/val0.png"), DRY, "less than 8 bits"),
    Bad("label that is gone", gone("data/labels/val/val0.png"), DRY, "no label"),
    Bad("patch that is not there", nothing, "patch show {}/none", "no patch at"),
    Bad("patch that is empty", raw("patch.safetensors", b""), SHOW, "no whole patch file"),
    Bad("patch that is a pickle", raw("patch.safetensors", pickle.dumps([1])), SHOW, "no whole patch file"),
    Bad(
        "patch with a lying header", raw("patch.safetensors", b"\xff" * 7 + b"\x00{}"), SHOW, "no whole patch file"
    ),
    Bad("patch of other tensors", patch_of(torch.ones(3), "weight"), SHOW, "holds no patch"),
    Bad("patch of one channel", patch_of(torch.ones(1, 2, 2)), SHOW, "float tensor"),
    Bad("patch of no pixels", patch_of(torch.ones(3, 0, 2)), SHOW, "float tensor"),
    Bad("patch of whole numbers", patch_of(torch.ones(3, 2, 2, dtype=torch.int32)), SHOW, "float tensor"),
    Bad("patch with NaN", patch_of(torch.full((3, 2, 2), torch.nan)), SHOW, "finite"),
    Bad("patch out of range", patch_of(torch.full((3, 2, 2), 2.0)), SHOW, "lie in [0, 1]"),
    Bad("patch of an unknown kind", patch_about(kind="evil"), SHOW, "kind is one of"),
    Bad("patch with other pixels", patch_about(sha256="0"), SHOW, "is damaged"),
    Bad("patch with a range of text", patch_about(range="abc"), SHOW, "no whole patch file"),
    Bad("patch with a number for a name", patch_about(name=7), SHOW, "its name is of type int"),
    Bad("patch with text for steps", patch_about(steps="many"), SHOW, "its steps is of type str"),
    Bad("folder without patches", nothing, "patch list {}/data", "no patch file below"),
    Bad("checkpoint that is not there", nothing, CHECK, "no checkpoint at"),
    Bad("checkpoint that is a folder", folder("c.pth"), CHECK, "is a folder"),
    Bad("checkpoint that is empty", raw("c.pth", b""), CHECK, "is empty"),
    Bad("checkpoint that is text", text("c.pth", "hello"), CHECK, "is no checkpoint"),
    Bad("checkpoint that is cut", raw("c.pth", b"PK\x03\x04abc"), CHECK, "cannot be read as a checkpoint"),
    Bad("pickle that runs a command", hostile, CHECK, "holds more than tensors"),
    Bad("archive that runs a command", hostile_archive, CHECK, "holds more than tensors"),
    Bad("checkpoint of a list", lambda root: torch.save([1, 2], root / "c.pth"), CHECK, "no state dict"),
    Bad(
        "checkpoint of another network",
        lambda root: torch.save({"a": torch.ones(1)}, root / "c.pth"),
        CHECK,
        "pidnet-s",
    ),
    Bad("unknown network", nothing, "attack --victim pidnet-z --data streets --out {}/out", "did you mean"),
    Bad("victims file that is not there", nothing, FILE, "no victims file"),
    Bad("victims file that is no TOML", text("v.toml", "[["), FILE, "no TOML file"),
    Bad("victims file nested too deep", text("v.toml", "a=" + "[" * 100_000), FILE, "no TOML file"),
    Bad("victims file without victims", text("v.toml", ""), FILE, "names no victim"),
    Bad("victims file with another table", text("v.toml", "[victims.a]\nx=1"), FILE, "unknown table"),
    Bad(
        "victim with an unknown setting",
        text("v.toml", "[victim.pidnet-s]\nmeen=1"),
        FILE,
        "v.toml: [victim.pidnet-s]: unknown setting 'meen'; did you mean 'mean'",
    ),
    Bad("victim with a mean of text", text("v.toml", '[victim.pidnet-s]\nmean="x"'), FILE, "mean"),
    Bad(
        "victim below the home of nobody",
        text("v.toml", '[victim.a]\nnetwork = "pidnet-s"\ncheckpoint = "~no-such-person/x"'),
        FILE,
        "names a path that cannot be",
    ),
    Bad(
        "victim with a path too long",
        text("v.toml", f'[victim.a]\nnetwork = "pidnet-s"\nclasses = "{"x" * 5000}"'),
        FILE,
        "names a path that cannot be",
    ),
    Bad("victim without a network", text("v.toml", "[victim.x]\nwindow=0"), FILE, "needs a network"),
    Bad("plan that is not there", nothing, STUDY, "give a TOML file with fields of the plan"),
    Bad("plan that is no TOML", text("p.toml", "= 1"), STUDY, "no TOML file"),
    Bad("plan with an unknown field", text("p.toml", "seedz = [1]"), STUDY, "unknown field"),
    Bad("steps that the published run did not have", towns, f"{RELEASED} --steps 5", "steps is 14880 in"),
    Bad("plan of another precision", towns_and_plan('precision = "bf16"'), PLANNED, "precision is fp32 in"),
    Bad("plan that says as released", towns_and_plan("as_released = true\nimages = 3"), PLAN, "images is all"),
    Bad("plan with a wrong type", text("p.toml", 'seeds = "x"'), STUDY, "seeds"),
    Bad(
        "plan that would run code",
        text("p.toml", "seeds = \"__import__('os').system('touch ran')\""),
        STUDY,
        "seeds",
    ),
    Bad("report of nothing", folder("r"), "report {}/r --out {}/out", "no transfer.json"),
    Bad("report of no JSON", folder("r", transfer_json="{"), "report {}/r --out {}/out", "no valid result"),
    Bad(
        "report of another schema",
        folder("r", transfer_json='{"schema": 99}'),
        "report {}/r --out {}/out",
        "no valid",
    ),
    Bad("report of a link out of it", link_out, "report {}/r --out {}/out", "is a link out of"),
    Bad("study of a list", folder("r", study_json="[]"), "report {}/r --out {}/out", "damaged"),
    Bad(
        "study that leads outside",
        folder("r", study_json='{"matrices": ["../.."], "cells": {}}'),
        "report {}/r --out {}/out",
        "damaged",
    ),
    Bad(
        "study nested too deep",
        folder("r", study_json="[" * 100_000),
        "report {}/r --out {}/out",
        "no readable JSON",
    ),
    Bad(
        "study without its parts",
        folder("r", study_json="{}"),
        "report {}/r --out {}/out",
        "of their kinds",
    ),
    Bad(
        "study with a cell that says nothing",
        folder("r", study_json='{"command": "x", "plan": {}, "matrices": [], "cells": {"sizes/a": {}}}'),
        "report {}/r --out {}/out",
        "/r holds a damaged result (",
    ),
    Bad(
        "study with a cell that is a number",
        folder("r", study_json='{"command": "x", "plan": {}, "matrices": [], "cells": {"a": 1}}'),
        "report {}/r --out {}/out",
        "a cell is no table",
    ),
    Bad("scales of text", nothing, "fit --model pidnet-s --data streets --scales a --out {}/out", "--scales is"),
    Bad("patches in no order", nothing, "patch list {} --sort size", "unknown order 'size'"),
    Bad("picture with no name", nothing, "patch export {}/patch.safetensors --out .", "end its name in .png"),
    Bad(
        "streets where the user is", nothing, "data make streets --val 1 --out .", "is the folder that you are in"
    ),
    Bad("picture that is there", png, "patch export {}/patch.safetensors --out {}/p.png", "/p.png exists; use --"),
    Bad("label that is a JPEG", jpeg, DRY, "which blurs class ids"),
    Bad(
        "classes that are too many",
        text("data/classes.txt", "\n".join(map(str, range(255)))),
        "data check folder:{}/data",
        "expected 1 to 254 classes",
    ),
    Bad(
        "class with a colour of text",
        text("data/classes.json", '[{"id": 0, "name": "a", "color": [300, 1, 2]}]'),
        "data check folder:{}/data",
        "class colours are three numbers",
    ),
    Bad("patch about a list", patch_of_record("[]"), SHOW, "its record is no table"),
    Bad("patch with a short range", patch_about(range=[[0, 1]]), SHOW, "(its range: "),
    *(
        Bad(
            f"{words.split(',')[0]} ({command.split()[0]} {option})",
            nothing,
            f"{command} {option} --out {{}}/out",
            words,
        )
        for command, options in NUMBERS.items()
        for option, words in options.items()
    ),
    Bad(
        "limit of a gate",
        nothing,
        "report {} --out {}/out --fail-on-drop 2",
        "(--fail-on-drop) must be in [-1, 1]",
    ),
    Bad(
        "size of a download",
        nothing,
        "models download pidnet-s --max-size nan",
        "--max-size must be in (0, 1e+06]",
    ),
    Bad(
        "size of an export",
        nothing,
        "models export pidnet-s --out {}/out.onnx --size 16384",
        "size may hold 64 million pixels, got 16384x16384",
    ),
    Bad("batch of a study", text("p.toml", ""), f"{STUDY} --batch-size 0", "batch_size must be a whole number"),
    Bad("batch of a bench", nothing, "bench --batch-size 0", "batch must be a whole number from 1"),
    Bad("rounds of a bench", nothing, "bench --repeats -1", "repeats must be a whole number from 1"),
    Bad("seed of a bench", nothing, "bench --seed -1", "seed must be a whole number"),
    Bad("size of a bench", nothing, "bench --size 20000", "each side of size must be"),
    Bad("place that is a number", nothing, f"{SHOWN} --image {'9' * 5000}", "--image is a name in split 'val'"),
    Bad("seed of a picture", nothing, f"{SHOWN} --patch {{}}/patch.safetensors --seed -1", "seed must be a whole"),
    Bad("images of a patch", nothing, f"{SHOW} {ON} --images 0", "the number of images must be"),
    *(
        Bad(f"plan with {text_}", text("p.toml", text_), STUDY, words)
        for text_, words in {
            "seeds = []": "seeds must be one or more, and different; got ()",
            "seeds = [-1]": "seed must be a whole number",
            "seeds = [1, 1]": "seeds must be one or more, and different",
            "presets = []": "presets must name one or more of",
            "margin = nan": "margin must be in [0, 1], got nan",
            "batch_size = 0": "batch_size must be a whole number from 1",
            "images = 0": "images must be a whole number from 1",
            "seed = -1": "seed must be a whole number",
            "scales = [nan]": "each of scales must be in (0, 8], got nan",
            "grid = [1, 99999999]": "each number in grid must be a whole number from 1",
            "draws = 9999999999": "draws must be a whole number from 4",
            "overrides = {stepz = 1}": "unknown field in overrides 'stepz'; did you mean 'steps'",
            "overrides = {seed = 1}": "unknown field in overrides 'seed'",
            "overrides = {steps = 'many'}": "overrides.steps: Input should be a valid integer",
            "overrides = {step_size = inf}": "step_size must be in (0, 1], got inf",
            "overrides = {scales = [1, inf]}": "each of scales must be in (0, 100], got inf",
            "overrides = {patch_size = [0, 8]}": "each side of patch_size must be a whole number from 1",
            "overrides = {range = [[0, 0, nan], [1, 1, 1]]}": "range must be in [0, 1], got nan",
            "overrides = {patch_eot = {rotation = nan}}": "rotation must be in [0, 180], got nan",
            "precision = 'fp8'": "precision must be fp32 or bf16, got 'fp8'",
        }.items()
    ),
    *(
        Bad(f"victim with {setting}", text("v.toml", f"[victim.pidnet-s]\n{setting}"), FILE, words)
        for setting, words in {
            "std = [inf, 1, 1]": "each std must be in [1e-06, 1e+06], got inf",
            "std = [1, 0, 1]": "each std must be in",
            "mean = [nan, 0, 0]": "each mean must be in [-1e+06, 1e+06], got nan",
            "value_range = -1": "value_range must be in",
            "window = -1": "window must be a whole number from 1",
            "window = 64\nstride = 65": "stride must be a whole number from 1 to 64, got 65",
        }.items()
    ),
    Bad(
        "network about a list",
        network_about("[]"),
        "models check pidnet-s {}/c.safetensors",
        "record of its network (no",
    ),
    *(
        Bad(f"name of 300 letters for {what}", nothing, command + LONG, "File name too long; give a shorter name")
        for what, command in {
            "a run": f"{RUN} --out {{}}/",
            "a run to report": "report --out {}/out {}/",
            "a patch": "patch show {}/",
            "a folder": "data check folder:{}/",
            "a list": "data check list:{}/",
            "CamVid": "data check camvid:{}/",
            "a fitted network": "attack --data folder:{}/data --out {}/out --victim {}/",
            "a checkpoint": "attack --data folder:{}/data --out {}/out --victim pidnet-s={}/",
            "a victims file": "attack --data folder:{}/data --out {}/out --victims {}/",
            "a plan": "study paper --victim pidnet-s --data streets --out {}/out --config {}/",
        }.items()
    ),
    Bad(
        "name of 300 letters for Cityscapes",
        nothing,
        "data check cityscapes:{}/" + LONG,
        "(File name too long); give a shorter name",
    ),
    Bad("result that is a pipe", pipe("r/transfer.json"), REPORT, "no transfer.json"),
    Bad("result that is a link to itself", loop("r/transfer.json"), REPORT, "no transfer.json"),
    Bad("result of 100 GB", huge("r/transfer.json"), REPORT, "bytes, more than the"),
    Bad("study of 100 GB", huge("r/study.json"), REPORT, "bytes, more than the"),
    Bad("classes of 100 GB", huge("data/classes.json"), DRY, "bytes, more than the"),
    Bad("list of 100 GB", huge("l.txt"), "data check list:{}/l.txt", "bytes, more than the"),
    Bad("victims file of 100 GB", huge("v.toml"), FILE, "bytes, more than the"),
    Bad("plan of 100 GB", huge("p.toml"), STUDY, "bytes, more than the"),
    Bad("image of 100 GB", huge("data/images/val/val0.png"), DRY, "bytes, more than the"),
    Bad("patch of 100 GB", huge("patch.safetensors"), SHOW, "bytes, more than the"),
    Bad(
        "list of a pipe",
        listed_pipe,
        "attack --victim pidnet-s --data list:{}/l.txt --train-split all --out {}/out",
        "is no plain file",
    ),
    Bad("victims file that is no text", raw("v.toml", b"\xff\xfe\x00"), FILE, "not a text file"),
    Bad("page into a data set", nothing, "report {}/r --out {}/data", "holds other files than a page of segpatch"),
    Bad(
        "page over another's",
        folder("mine", index_html="<title>Mine</title>"),
        "report {}/r --out {}/mine",
        "holds other files than a page of segpatch",
    ),
    Bad(
        "picture over another",
        png,
        "show --victim pidnet-s --data folder:{}/data --out {}/p.png",
        "/p.png exists; use --overwrite",
    ),
    Bad(
        "run over the patch that it reads",
        finished_attack,
        "transfer --victim pidnet-s --data folder:{}/data --patch {}/r --out {}/r --overwrite",
        "--overwrite would remove",
    ),
    Bad(
        "run over the network that it reads",
        nothing,
        "attack --victim pidnet-s={}/patch.safetensors --data folder:{}/data --out {} --overwrite",
        "--overwrite would remove",
    ),
    Bad(
        "resumed run whose config is a list",
        folder("r", config_json="[1]"),
        f"{RUN} --out {{}}/r --resume",
        "config.json is damaged (no table); start again with --overwrite",
    ),
    Bad(
        "resumed run whose config is no JSON",
        folder("r", config_json="{"),
        f"{RUN} --out {{}}/r --resume",
        "config.json is no readable JSON file",
    ),
    Bad(
        "resumed run of another command",
        folder("r", config_json='{"command": "fit"}'),
        f"{RUN} --out {{}}/r --resume",
        "holds a run with another command",
    ),
    Bad(
        "resumed run whose config has odd names",
        folder("r", config_json='{"a\\nb\\u001b[1m": 1}'),
        f"{RUN} --out {{}}/r --resume",
        "holds a run with another a; b?[1m, command",
    ),
    Bad("unknown procedural data", nothing, "data make streats --out {}/s", "did you mean"),
]


def prepare(root: Path) -> None:
    """What every bad input starts from."""
    save_patch(grey_patch((2, 2)), root / "patch.safetensors")
