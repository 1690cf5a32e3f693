"""The scripts of docs/how-to run, with stand-ins for packages that segpatch does not depend on.

That of TensorBoard has the methods of torch's own source, that of MLflow those of its documentation.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from segpatch.attack import train_patch
from segpatch.data.make import make_streets
from segpatch.patch import FULL_RANGE, load_patch, random_patch, save_patch
from segpatch.results import read_transfer
from tiny import TINY, Tiny, conv_victim, learnable, learnable_dataset

HOW_TO = Path(__file__).parents[1] / "docs/how-to"
IMAGES = [(image.float() / 255, labels) for image, labels in learnable()]


def scripts(name: str) -> list[str]:
    return re.findall(r"^```python\n(.+?)^```", (HOW_TO / f"{name}.md").read_text(), re.DOTALL | re.MULTILINE)


def names(tmp_path: Path) -> dict[str, Any]:
    """What the texts take as given."""
    data = learnable_dataset(tmp_path / "data")
    return {"victim": conv_victim(), "images": IMAGES, "config": TINY, "data": data, "folder": tmp_path / "out"}


class Recorder:
    """Takes the calls that the signatures allow and writes them down."""

    def __init__(self, signatures: dict[str, inspect.Signature]) -> None:
        self.signatures, self.calls = signatures, []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        signature = self.signatures[name]

        def call(*given: Any, **named: Any) -> Any:
            arguments = signature.bind(*given, **named).arguments
            self.calls.append((name, arguments))
            return self

        return call

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *error: object) -> None:
        self.calls.append(("end", {}))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [arguments for called, arguments in self.calls if called == name]


def signature_of(text: str) -> inspect.Signature:
    scope: dict[str, Any] = {}
    exec(f"def f({text}): ...", scope)
    return inspect.signature(scope["f"])


def writer_of_torch() -> dict[str, inspect.Signature]:
    """The methods of SummaryWriter, from the source file: to import it, TensorBoard must be installed."""
    source = Path(torch.__file__).parent / "utils/tensorboard/writer.py"
    tree = next(
        node for node in ast.parse(source.read_text()).body if getattr(node, "name", "") == "SummaryWriter"
    )
    out = {}
    for method in ast.iter_child_nodes(tree):
        if isinstance(method, ast.FunctionDef):
            method.args.args.pop(0)  # self
            for argument in method.args.args:
                argument.annotation = None
            out[method.name] = signature_of(ast.unparse(method.args))
    return out


def test_tensorboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = Recorder(writer_of_torch())
    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = lambda *given, **named: (made.__getattr__("__init__")(*given, **named), made)[1]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    (script,) = scripts("tensorboard")
    scope = names(tmp_path)
    exec(script, scope)
    losses = [call for call in made.of("add_scalar") if call["tag"] == "attack/loss"]
    assert [call["global_step"] for call in losses] == list(range(1, TINY.steps + 1))
    seen: list[float] = []
    train_patch([scope["victim"]], IMAGES, TINY, on_step=lambda step: seen.append(step.loss))
    assert [call["scalar_value"] for call in losses] == seen
    (image,) = made.of("add_image")
    assert isinstance(image["img_tensor"], Tensor) and image["img_tensor"].shape == (3, 4, 4)
    assert made.calls[-1][0] == "close"


# Of MLflow 3.17: https://mlflow.org/docs/latest/python_api/mlflow.html
MLFLOW = {
    "set_experiment": "experiment_name=None, experiment_id=None, trace_location=None",
    "start_run": "run_id=None, experiment_id=None, run_name=None, nested=False, parent_run_id=None, tags=None, "
    "description=None, log_system_metrics=None",
    "log_params": "params, synchronous=None, run_id=None",
    "log_metrics": "metrics, step=None, synchronous=None, run_id=None, timestamp=None, "
    "model_id=None, dataset=None",
    "set_tag": "key, value, synchronous=None",
    "log_artifacts": "local_dir, artifact_path=None, run_id=None",
}


def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made = Recorder({name: signature_of(text) for name, text in MLFLOW.items()})
    stand_in = ModuleType("mlflow")
    for name in MLFLOW:
        setattr(stand_in, name, made.__getattr__(name))
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    (script,) = scripts("mlflow")
    scope = names(tmp_path)
    scope["folder"].mkdir()
    exec(script, scope)
    steps = made.of("log_metrics")
    assert [call.get("step") for call in steps] == [*range(1, TINY.steps + 1), None]
    assert steps[-1]["metrics"] == {"miou": scope["scores"].miou, "miou_drop": scope["scores"].miou_drop}
    assert made.of("set_tag")[0]["value"] == load_patch(scope["folder"]).sha256()
    assert made.of("log_artifacts")[0]["local_dir"] == str(scope["folder"]) and made.calls[-1][0] == "end"


def test_your_own_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(tmp_path)
    Path("runs/patch").mkdir(parents=True)
    save_patch(random_patch((4, 4), FULL_RANGE, 0), Path("runs/patch/patch.safetensors"))
    torch.manual_seed(0)
    scope = {"network": Tiny(), "loader": DataLoader(IMAGES, batch_size=2), "dataset": IMAGES}
    measure, train = scripts("own-network")
    assert measure.strip().count("\n") <= 5
    exec(measure, scope)
    assert re.fullmatch(r"mIoU 0\.\d+ -> 0\.\d+ outside the patch, -?0\.\d+ lost\n", capsys.readouterr().out)
    small = {"steps": 2, "crop": (10, 10), "patch_size": (4, 4), "held_out": 2}
    monkeypatch.setattr("dataclasses.replace", lambda config, **given: replace(replace(config, **given), **small))
    exec(train, scope)
    assert (scope["patch"].preset, scope["patch"].steps) == ("strong", 2)


def test_the_tutorial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its ten lines, made short, on two victims of one's own module and a folder as `data make` writes it."""
    network, verdict = scripts("../tutorial")
    lines = [line for line in verdict.splitlines() if line]
    assert len(lines) <= 10
    monkeypatch.chdir(tmp_path)
    make_streets(tmp_path / "data/streets", train=10, val=2, height=64, width=128, seed=0)
    mynet = ModuleType("mynet")
    exec(network, vars(mynet))
    monkeypatch.setitem(sys.modules, "mynet", mynet)
    torch.save(mynet.MyNet().state_dict(), "mynet.pt")
    short = verdict.replace('"steps": 200, "batch_size": 4', '"steps": 1, "batch_size": 1, "held_out": 2')
    assert short != verdict
    exec(short, {})
    result = read_transfer(tmp_path / "runs/mynet")
    assert [victim.name for victim in result.victims] == ["mynet", "pidnet-s"]
    assert result.victims[0].checkpoint_sha256 and (tmp_path / "runs/mynet/report/index.html").is_file()
