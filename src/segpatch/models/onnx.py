"""ONNX files as victims, for evaluation alone: no gradient leads through them to a patch."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segpatch.data.classes import CITYSCAPES, ClassSet
from segpatch.errors import BadInput, Missing
from segpatch.models.checkpoints import file_sha256
from segpatch.models.settings import class_set, read_facts
from segpatch.models.victim import IMAGENET_MEAN, IMAGENET_STD, Provenance, Victim

METADATA = "segpatch"
"""The key that facts about an exported victim are kept under in its file."""
_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_INTEGERS = {f"tensor({kind}{bits})" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}


def onnx_victim(path: Path, classes: ClassSet | None = None) -> Victim:
    """The victim of an ONNX file with one input (B, 3, H, W), floats, and one output.

    The output is logits (B, K, h, w), or a map of class ids (B, H, W) or (B, 1, H, W), which becomes logits of 1
    for the class and 0 for the others. A file that segpatch exported says the rest itself; any other is taken to
    want images normalised as ImageNet's. classes: what the ids mean; needed for a map of ids, and where there
    are not the 19 of Cityscapes. Raises Missing without the file or onnxruntime, BadInput for any other form.
    """
    if not path.is_file():
        raise Missing(f"no ONNX file at {path}; give onnx:FILE")
    session = _session(path)
    facts = _facts(path, session)
    named = class_set(facts["classes"], path) if "classes" in facts else None
    network = OnnxNetwork(session, path, classes or named)
    return Victim(
        network,
        mean=tuple(facts.get("mean", IMAGENET_MEAN)),
        std=tuple(facts.get("std", IMAGENET_STD)),
        name=path.stem,
        classes=network.classes,
        provenance=Provenance(
            network=facts.get("network", "onnx"),
            family=facts.get("family", "cnn"),
            checkpoint=path.name,
            sha256=file_sha256(path),
            trained_on=facts.get("trained_on"),
            clean_miou=facts.get("clean_miou"),
            clean_on=facts.get("clean_on"),
            licence=facts.get("licence"),
            preprocessing=None if facts else "mean and std of ImageNet: the file does not say its own",
        ),
    )


class OnnxNetwork(nn.Module):
    """A session of onnxruntime as a module: float images (B, 3, H, W) in, logits (B, K, h, w) out, on the CPU."""

    differentiable = False

    def __init__(self, session: Any, path: Path, classes: ClassSet | None) -> None:
        super().__init__()
        self.session, self.path = session, path
        inputs, outputs = session.get_inputs(), session.get_outputs()
        if len(inputs) != 1 or inputs[0].type not in _FLOATS or len(inputs[0].shape) != 4:
            raise BadInput(f"{path} takes {_listing(inputs)}; expected one input (B, 3, H, W) of floats")
        if len(outputs) != 1:
            raise BadInput(f"{path} returns {_listing(outputs)}; export it with the logits as its only output")
        self.input, self.output = inputs[0], outputs[0]
        batch, channels, height, width = (side if isinstance(side, int) else None for side in self.input.shape)
        if channels not in (None, 3) or batch not in (None, 1):
            raise BadInput(f"{path} takes {_listing(inputs)}; expected 3 channels, in batches of 1 or of any size")
        self.batch, self.height, self.width = batch, height, width
        self.classes = self._class_set(classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch; BadInput where the file was exported for another size."""
        height, width = x.shape[-2:]
        if self.height not in (None, height) or self.width not in (None, width):
            wanted = f"{self.height or 'any height'}x{self.width or 'any width'}"
            raise BadInput(
                f"{self.path} takes images of {wanted} only, these are {height}x{width}; export it for "
                "them, measure on images of its size, or set its window in a file for --victims"
            )
        parts = [x] if self.batch is None else [x[i : i + 1] for i in range(len(x))]
        return torch.cat([self._logits(part) for part in parts]).to(x.device)

    def _logits(self, x: Tensor) -> Tensor:
        images = x.cpu().numpy().astype(_FLOATS[self.input.type])
        try:
            (out,) = self.session.run(None, {self.input.name: images})
        except Exception as error:  # onnxruntime has many of its own
            size = "x".join(map(str, x.shape))
            raise BadInput(f"{self.path} cannot be run on images of {size} ({_first_line(error)})") from error
        out = torch.from_numpy(np.ascontiguousarray(out))
        if out.is_floating_point():
            return out.float()
        labels = out.reshape(out.shape[0], *out.shape[-2:]).long()
        if int(labels.min()) < 0 or int(labels.max()) >= len(self.classes):
            raise BadInput(
                f"{self.path} returned class id {int(labels.max())}; {self.classes.name} has {len(self.classes)} "
                "classes, counted from 0"
            )
        return F.one_hot(labels, len(self.classes)).permute(0, 3, 1, 2).float()

    def _class_set(self, given: ClassSet | None) -> ClassSet:
        shape = self.output.shape
        if self.output.type in _INTEGERS and (len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)):
            if given is None:
                raise BadInput(
                    f"{self.path} returns class ids without naming the classes; name them in a file for --victims"
                )
            return given
        if self.output.type not in _FLOATS or len(shape) != 4:
            raise BadInput(
                f"{self.path} returns {_listing([self.output])}; expected logits (B, K, h, w) of floats, or class "
                "ids (B, H, W)"
            )
        count = shape[1]
        if given is None and isinstance(count, int) and count != len(CITYSCAPES):
            raise BadInput(f"{self.path} predicts {count} classes; name them in a file for --victims")
        given = given or CITYSCAPES
        if isinstance(count, int) and count != len(given):
            raise BadInput(
                f"{self.path} predicts {count} classes; the {len(given)} of {given.name} do not name them"
            )
        return given


def package(name: str) -> Any:
    """A package of the extra `onnx`; Missing where it is not installed."""
    try:
        return import_module(name)
    except ImportError as error:
        raise Missing(f"ONNX files need {name}; install it with: pip install 'segpatch[onnx]'") from error


def _session(path: Path) -> Any:
    onnxruntime = package("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what goes wrong is said in one line, below
    try:
        providers = onnxruntime.get_available_providers()
        # To fall back on other providers, it would print to stdout and read a damaged file again.
        return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=False)
    except Exception as error:  # onnxruntime has many of its own
        raise BadInput(f"{path} is no ONNX file that onnxruntime can run ({_first_line(error)})") from error


def _facts(path: Path, session: Any) -> dict[str, Any]:
    try:
        text = session.get_modelmeta().custom_metadata_map.get(METADATA)
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} holds a damaged record of its network ({error}); make it again") from error
    return read_facts(text, path)


def _listing(values: Any) -> str:
    return ", ".join(f"{v.name} ({', '.join(map(str, v.shape))}) of {v.type}" for v in values)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
