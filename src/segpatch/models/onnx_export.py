"""A victim as an ONNX file: images in [0, 1] in, logits at image size out, everything between in one graph."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segpatch.bounds import check_size
from segpatch.data.drawn import drawn_streets
from segpatch.errors import BadInput, SegpatchError
from segpatch.models.onnx import METADATA, onnx_victim, package
from segpatch.models.settings import class_facts
from segpatch.models.victim import Victim

ROUNDING = 1e-4
"""Difference of logits, relative to the largest, that another order of additions may make."""


def export_onnx(victim: Victim, out: Path, size: tuple[int, int]) -> float:
    """Writes a victim as an ONNX file for images of one size (H, W); the largest difference of logits, relative.

    The file is kept only if it predicts the same classes as the victim, on noise and on a drawn street, wherever
    rounding does not decide. Raises BadInput where it does not, or cannot be written; Missing without the
    packages of the extra `onnx`.
    """
    check_size("size", size)
    for name in ("onnx", "onnxscript", "onnxruntime"):
        package(name)
    if not victim.differentiable:
        raise BadInput(f"{victim.name} is an ONNX file already; copy it")
    if out.suffix != ".onnx" or out.exists():
        raise BadInput(f"{out} is there already; choose another --out" if out.exists() else f"name it {out}.onnx")
    temporary = out.with_name(f".{out.stem}.{os.getpid()}.onnx")
    images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    victim = replace(victim, class_map=None)  # whoever measures the file maps its classes again
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write(victim, temporary, images)
        street = torch.tensor(drawn_streets(height=size[0], width=size[1]).read("val", 0)[0])
        difference = max(
            _difference(victim, onnx_victim(temporary), case)
            for case in (images, street.permute(2, 0, 1)[None].float() / 255)
        )
        temporary.replace(out)
    except OSError as error:
        raise SegpatchError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return difference


class _Whole(nn.Module):
    """A victim as a module: normalisation, padding and resize included."""

    def __init__(self, victim: Victim) -> None:
        super().__init__()
        self.victim, self.network = victim, victim.module

    def forward(self, images: Tensor) -> Tensor:
        return self.victim(images).float()


def _write(victim: Victim, path: Path, images: Tensor) -> None:
    try:
        with _quiet():
            program: Any = torch.onnx.export(
                _Whole(victim).eval(), (images,), input_names=["images"], output_names=["logits"], verbose=False
            )
    except Exception as error:  # torch.onnx has many of its own
        cause = error.__cause__ or error
        reason = f"{type(cause).__name__}: {str(cause).strip().partition(chr(10))[0]}"
        raise BadInput(f"{victim.name} cannot be exported ({reason})") from error
    about = victim.provenance
    program.model.metadata_props[METADATA] = json.dumps(
        {
            "network": about.network,
            "family": about.family,
            "classes": class_facts(victim.classes),
            "mean": [0, 0, 0],
            "std": [1, 1, 1],
            "trained_on": about.trained_on,
            "clean_miou": about.clean_miou,
            "clean_on": about.clean_on,
            "licence": about.licence,
            "exported_from": about.sha256,
        }
    )
    program.save(path, external_data=False)


def _difference(victim: Victim, exported: Victim, images: Tensor) -> float:
    """The largest difference of logits, relative to the largest; BadInput where it changes a class."""
    with torch.inference_mode():
        wanted, got = victim(images).float(), exported(images)
    scale = float(wanted.abs().max())
    difference = float((wanted - got).abs().max()) / max(scale, 1e-12)
    best = wanted.topk(2, dim=1).values
    close = best[:, 0] - best[:, 1] <= 2 * ROUNDING * scale
    changed = (wanted.argmax(1) != got.argmax(1)) & ~close
    if changed.any() or difference != difference:
        raise BadInput(
            f"the exported {victim.name} predicts another class for {int(changed.sum())} of {changed.numel()} "
            f"pixels (logits differ by {difference:.1e} of the largest); nothing was kept"
        )
    return difference


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks on its own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
