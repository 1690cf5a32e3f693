"""What a patch step and a measurement cost beside the bare network, on this machine, in one run."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segpatch import heap
from segpatch.attack_config import AttackConfig, resolve
from segpatch.attack_step import draw_samples, patch_gradient
from segpatch.bounds import MOST_BATCH, check_precision, check_seed, check_size, check_whole
from segpatch.data.classes import CITYSCAPES
from segpatch.errors import BadInput, Missing
from segpatch.evaluation import evaluate_all
from segpatch.latency import Action, Ratio, Timing, interleaved, ratio
from segpatch.memory import memory_advice
from segpatch.models.folding import folded
from segpatch.models.networks import network_name, network_spec
from segpatch.models.victim import Provenance, Victim
from segpatch.patch import FULL_RANGE, Patch, random_pixels
from segpatch.transforms import as_float
from segpatch.types import Batch
from segpatch.updates import sign_step

MOST_REPEATS = 10_000
PATCHES = 4
"""Patches of the measurement: enough that the clean forward pass is shared."""

Reference = Callable[[Victim, Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class BenchPlan:
    """size: of the images, (height, width) in pixels; batch: images a step; repeats: counted rounds; only: "step"
    or "evaluation", None for both."""

    size: tuple[int, int] = (512, 512)
    batch: int = 2
    repeats: int = 5
    precision: str = "fp32"
    seed: int = 0
    only: str | None = None

    def __post_init__(self) -> None:
        if self.only not in (None, "step", "evaluation"):
            raise BadInput(f"only must be step or evaluation, got {self.only!r}")
        check_size("size", self.size)
        check_whole("batch", self.batch, 1, MOST_BATCH)
        check_whole("repeats", self.repeats, 1, MOST_REPEATS)
        check_precision(self.precision)
        check_seed(self.seed)


@dataclass(frozen=True)
class BenchRow:
    """One network: timings by action, ratios by name. Actions without a reference are left out.

    step: our step over bare forward and backward; evaluation: over the P + 1 bare forwards it stands for; naive:
    the reference step over ours; step_memory: peak over that of bare forward and backward, None without a step.
    """

    network: str
    timings: dict[str, Timing]
    ratios: dict[str, Ratio]
    step_memory: float | None

    def facts(self) -> dict[str, Any]:
        return {**asdict(self), "timings": {name: asdict(timing) for name, timing in self.timings.items()}}


def bench_network(
    name: str, plan: BenchPlan, device: torch.device, reference: Reference | None = None
) -> BenchRow:
    """The row of one network with random weights, see `bench_actions`."""
    actions, before = bench_actions(name, plan, device, reference)
    timings = interleaved(actions, plan.repeats, device, before)
    if before:
        heap.keep()
    ratios, memory = {}, None
    if "step" in timings:
        bare = timings["forward_backward"]
        ratios["step"] = ratio(timings["step"], bare)
        memory = timings["step"].peak_bytes / max(1, bare.peak_bytes)
    if "evaluation" in timings:
        ratios["evaluation"] = ratio(timings["evaluation"], timings["forward"], PATCHES + 1)
    if "naive" in timings:
        ratios["naive"] = ratio(timings["naive"], timings["step"])
    return BenchRow(network_name(name), timings, ratios, memory)


def bench_actions(
    name: str, plan: BenchPlan, device: torch.device, reference: Reference | None = None
) -> tuple[dict[str, Action], dict[str, Action]]:
    """What is timed of one network with random weights, by name, and what is done right before an action, untimed.

    Bare is the frozen, folded, channels-last module in the same precision, to its raw logits, and the gradient of
    the images with a fixed random upstream; a step is everything from uint8 images in memory to the updated patch.
    """
    if reference and plan.only == "evaluation":
        raise BadInput("a reference step is held against our step; leave --against or --only evaluation out")
    name = network_name(name)
    torch.manual_seed(plan.seed)
    module = network_spec(name).default.build(len(CITYSCAPES), auxiliary=False)
    module.to(device)
    plain = copy.deepcopy(module)  # in the memory order that torch builds it in
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    victim = Victim(
        module,
        name=name,
        size_multiple=module.size_multiple,  # type: ignore[arg-type]
        size_offset=getattr(module, "size_offset", 0),
        align_corners=module.output_align_corners,  # type: ignore[arg-type]
        provenance=Provenance(network=name),
    )
    fast = folded(victim)
    draw = torch.Generator().manual_seed(plan.seed)
    images = torch.randint(256, (plan.batch, 3, *plan.size), dtype=torch.uint8, generator=draw)
    labels = torch.randint(len(CITYSCAPES), (plan.batch, *plan.size), dtype=torch.uint8, generator=draw)
    as_read = images.contiguous(memory_format=torch.channels_last)  # each pixel's channels together, as in a file
    decoded = list(zip(as_read, labels, strict=True))
    config = AttackConfig(batch_size=plan.batch, crop=plan.size, seed=plan.seed, precision=plan.precision, steps=1)
    config = resolve(config, decoded, [victim])
    assert config.patch_size
    pixels = random_pixels(config.patch_size, FULL_RANGE, plan.seed).to(device)
    low, high = (torch.tensor(bound, device=device) for bound in FULL_RANGE)
    x = victim.normalise(as_float(images).to(device)).contiguous(memory_format=torch.channels_last)
    half = torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bf16")

    def forward() -> Tensor:
        with torch.inference_mode(), half:
            return fast.module.raw_logits(x)  # type: ignore[operator,no-any-return]

    upstream = torch.randn(forward().shape, generator=draw).to(device)

    def both() -> Tensor:
        leaf = x.detach().requires_grad_(True)
        with half:
            logits = fast.module.raw_logits(leaf)  # type: ignore[operator]
        (gradient,) = torch.autograd.grad(logits, leaf, upstream.to(logits.dtype))
        return gradient

    def step() -> Tensor:
        gradient, _ = patch_gradient(
            [fast], pixels, config, lambda: draw_samples(decoded, range(plan.batch), 0, config, device=device)
        )
        return sign_step(pixels, gradient, config.step_size, low, high)

    patch = Patch(pixels.cpu())
    names = tuple(str(k) for k in range(plan.batch))
    batch = Batch(as_float(images), labels.long(), names)

    def measure() -> object:
        return evaluate_all([fast], [batch], [None, *[patch] * PATCHES], precision=plan.precision)

    actions: dict[str, Action] = {}
    before: dict[str, Action] = {}
    if plan.only != "step":
        actions |= {"forward": forward, "evaluation": measure}
    if plan.only != "evaluation":
        actions |= {"forward_backward": both, "step": step}
        if reference:
            as_built = replace(victim, module=plain)
            actions["naive"] = lambda: reference(as_built, images, labels, pixels.cpu())
            # It runs as its users would run it; what comes after it finds the heap as the command keeps it.
            before = {"naive": heap.as_it_is, next(iter(actions)): lambda: (heap.keep(), both())}
    return actions, before


def load_reference(path: Path) -> Reference:
    """The function `step` of a Python file; Missing without the file, BadInput without the function."""
    if not path.is_file():
        raise Missing(f"no file at {path}; give a Python file with a function step(victim, images, labels, patch)")
    spec = importlib.util.spec_from_file_location("segpatch_reference", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(getattr(module, "step", None)):
        raise BadInput(f"{path} has no function step(victim, images, labels, patch)")
    return module.step  # type: ignore[no-any-return]


def bench(
    networks: Sequence[str],
    plan: BenchPlan,
    device: torch.device,
    reference: Reference | None = None,
    on_network: Callable[[BenchRow], None] | None = None,
) -> list[BenchRow]:
    """A row for each network, in order; on_network is called after each."""
    rows = []
    for name in networks:
        with memory_advice(plan.batch):
            rows.append(bench_network(name, plan, device, reference))
        if on_network:
            on_network(rows[-1])
    return rows
