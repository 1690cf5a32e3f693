"""Fitting a network to a data set: the recipe, one loop, best weights by mIoU on held-out images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from segpatch.bounds import MOST_BATCH, check_number, check_precision, check_seed, check_whole
from segpatch.criteria import CRITERIA, criterion
from segpatch.data.dataset import order
from segpatch.eot import generator_at
from segpatch.errors import BadInput, SegpatchError
from segpatch.metrics import confusion_matrix, miou, must_be_finite
from segpatch.models.checkpoints import not_finite
from segpatch.models.victim import Victim
from segpatch.processes import ALONE, Processes
from segpatch.transforms import SceneEOT, apply_scene, apply_scene_to_labels, as_float, draw_scene
from segpatch.types import LabelledImages


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """The recipe. Crops are height x width pixels; jitter is the largest change of light and colour.

    label_stride: the loss looks at every n-th pixel of every n-th row; 2 makes the tail after the network, which
    costs as much as the network on a CPU, four times cheaper.
    """

    steps: int = 2000
    batch_size: int = 8
    crop: tuple[int, int] = (256, 256)
    scales: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    jitter: float = 0.3
    label_stride: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    warmup: int = 100
    criterion: str = "balanced"
    averaging: float = 0.995
    """Decay per step of the moving average of the weights, which is what is kept."""
    precision: str = "fp32"
    seed: int = 0
    validate_every: int = 250

    def __post_init__(self) -> None:
        check_whole("steps", self.steps, 1)
        check_whole("batch_size", self.batch_size, 1, MOST_BATCH)
        check_whole("validate_every", self.validate_every, 1)
        check_whole("warmup", self.warmup)
        SceneEOT(self.scales, self.crop, self.flip)  # says what these may be
        check_whole("label_stride", self.label_stride, 1, min(self.crop))
        check_number("jitter", self.jitter, 0, 1, below=True)
        check_number("learning_rate", self.learning_rate, 0, 10, above=True)
        check_number("weight_decay", self.weight_decay, 0, 1)
        check_number("averaging", self.averaging, 0, 1, below=True)
        check_seed(self.seed)
        if self.criterion not in CRITERIA:
            raise BadInput(f"criterion must be one of {', '.join(CRITERIA)}; got {self.criterion!r}")
        check_precision(self.precision)


class FitStep(NamedTuple):
    """What one step did. miou is NaN unless the step ended with a validation."""

    step: int
    loss: float
    learning_rate: float
    miou: float


@dataclass
class FitState:
    """All that a fit needs to go on: weights, their average, the optimiser, and the best average so far."""

    step: int
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict[str, Tensor]
    best: dict[str, Tensor]
    best_miou: float


def fit_network(
    module: nn.Module,
    victim_of: Callable[[nn.Module], Victim],
    train: LabelledImages,
    held_out: LabelledImages,
    config: FitConfig,
    *,
    resume: FitState | None = None,
    on_step: Callable[[FitStep], None] | None = None,
    on_state: Callable[[FitState], None] | None = None,
    processes: Processes = ALONE,
) -> FitState:
    """The state after the last step; `best` holds the weights with the highest mIoU on `held_out`.

    module: built with its auxiliary heads; victim_of wraps it with its input format. on_step is called after
    each step, and on_state before it with the state, which shares memory with the running fit: copy or write it
    before on_step returns. processes: share the crops of each step, see `_shared`.
    """
    if config.batch_size < processes.world:
        raise BadInput(f"a batch of {config.batch_size} is too small for {processes.world} processes")
    module = _shared(module, processes)
    module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    device = next(module.parameters()).device
    victim = victim_of(module)
    module.requires_grad_(True)
    optimiser = torch.optim.AdamW(_groups(module, config), lr=config.learning_rate)
    state = resume or FitState(0, {}, _copy(module.state_dict()), {}, {}, -1.0)
    if resume:
        module.load_state_dict(resume.weights)
        _load_optimiser(optimiser, resume.optimiser)
    loss_of = criterion(config.criterion, train, len(victim.classes.names), device)
    for step, (images, labels) in _prefetch(train, config, state.step, processes):
        rate = _rate(config, step)
        for group in optimiser.param_groups:
            group["lr"] = rate
        loss = _train_step(
            module, victim, images.to(device), labels.to(device), loss_of, optimiser, config, step, processes
        )
        _average(state.average, module.state_dict(), min(config.averaging, (1 + step) / (10 + step)))
        state.step = step + 1
        score = float("nan")
        if state.step % config.validate_every == 0 or state.step == config.steps:
            score = _validate(module, victim, state.average, held_out, processes)
            if score > state.best_miou:
                state.best_miou, state.best = score, _copy(state.average)
        state.weights = module.state_dict()
        if on_state:
            state.optimiser = _optimiser_tensors(optimiser)
            on_state(state)
        if on_step:
            on_step(FitStep(state.step, loss, rate, score))
    return state


def measure_miou(victim: Victim, images: LabelledImages, processes: Processes = ALONE) -> float:
    """Clean mIoU of a victim over labelled images, one at a time, from one confusion matrix; never NaN."""
    classes = len(victim.label_classes.names)

    def counted() -> Tensor:
        total = torch.zeros(classes, classes, dtype=torch.int64)
        with torch.inference_mode():
            for index in processes.share(range(len(images))):
                image, labels = images[index]
                logits = victim(as_float(image)[None])
                must_be_finite(logits, victim.name)
                total += confusion_matrix(logits.argmax(1).cpu(), labels[None].long(), classes)[0]
        return total

    score = float(miou(torch.stack(processes.gathered(counted)).sum(0)))
    if math.isnan(score):
        raise BadInput("none of the images held out has a labelled pixel; hold out others, or more (--images)")
    return score


def _shared(module: nn.Module, processes: Processes) -> nn.Module:
    """The module as several processes train it, each on its share of a step's crops; gradients are averaged.

    On GPUs batch norms see the crops of all. On CPUs, for which torch has no such norm, each process normalises
    with its own crops and the running statistics are averaged. The loss of a share is divided by its own pixels
    (ohem: takes its own hardest), so a fit in N processes is as good as in one, but not the same.
    """
    if processes.world == 1 or next(module.parameters()).device.type == "cpu":
        return module
    synced: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return synced


def _train_step(
    module: nn.Module,
    victim: Victim,
    images: Tensor,
    labels: Tensor,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
    config: FitConfig,
    step: int,
    processes: Processes,
) -> float:
    module.train()
    weight = len(images) / config.batch_size
    with torch.random.fork_rng(devices=[]):
        chance = generator_at(config.seed, step, processes.rank)  # of dropout and drop path
        torch.manual_seed(int(chance.integers(2**62)))
        with torch.autocast(images.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            x = victim.normalise(images).contiguous(memory_format=torch.channels_last)
            try:
                outputs = module.all_outputs(x)  # type: ignore[operator]
            except ValueError as error:  # of torch's batch norm, where pooling leaves one value per channel
                if "more than 1 value per channel" not in str(error):
                    raise
                raise BadInput(
                    f"a batch norm of {victim.name} cannot learn from a single crop; give --batch-size "
                    f"{2 * processes.world} or more"
                ) from error
        outputs = {name: output.float() for name, output in outputs.items()}
        loss = weight * module.training_loss(outputs, labels, loss_of)  # type: ignore[operator]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
    if processes.world > 1:
        statistics = [buffer.mul_(weight) for key, buffer in module.named_buffers() if "running_" in key]
        processes.add([*(p.grad for p in module.parameters() if p.grad is not None), *statistics, loss])
    norm = nn.utils.clip_grad_norm_(module.parameters(), 5.0)
    if not math.isfinite(float(loss.detach())) or not math.isfinite(float(norm)):
        raise SegpatchError(
            f"the loss or its gradient is not finite in step {step + 1}; lower the learning rate, and train with "
            "--precision fp32"
        )
    optimiser.step()
    return float(loss.detach())


def _validate(
    module: nn.Module, victim: Victim, average: dict[str, Tensor], held_out: LabelledImages, processes: Processes
) -> float:
    """mIoU of the averaged weights, SegpatchError unless these are finite; the running weights are put back."""
    if key := not_finite(average):
        raise SegpatchError(
            f"the averaged weights ({key}) are not finite; lower the learning rate, or train with --precision fp32"
        )
    running = _copy(module.state_dict())
    module.load_state_dict(average)
    module.eval()
    score = measure_miou(victim, held_out, processes)
    module.load_state_dict(running)
    return score


def _prefetch(
    train: LabelledImages, config: FitConfig, first: int, processes: Processes
) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Step numbers with this process's crops, the next ones made while the network works."""
    samples = processes.share(range(config.batch_size))
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(fit_batch, train, config, first, samples)
        for step in range(first, config.steps):
            batch = processes.together(coming.result)
            coming = pool.submit(fit_batch, train, config, min(step + 1, config.steps - 1), samples)
            yield step, batch


def fit_batch(
    train: LabelledImages, config: FitConfig, step: int, samples: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Crops (B, 3, h, w) and labels (B, h / stride, w / stride) of a step, a function of (seed, step) alone.

    samples: numbers of the crops to make; None for all of the step.
    """
    eot = SceneEOT(scales=config.scales, crop=config.crop, flip=config.flip)
    images, labels = [], []
    for sample in range(config.batch_size) if samples is None else samples:
        position = step * config.batch_size + sample
        epoch, place = divmod(position, len(train))
        image, truth = train[order(config.seed, epoch, len(train))[place]]
        generator = generator_at(config.seed, step, sample)
        scene = draw_scene(eot, truth.shape[0], truth.shape[1], generator)
        images.append(_jitter(apply_scene(as_float(image), scene), config.jitter, generator))
        near = slice(config.label_stride // 2, None, config.label_stride)
        labels.append(apply_scene_to_labels(truth, scene)[near, near].long())
    return torch.stack(images), torch.stack(labels)


def _jitter(image: Tensor, amount: float, generator: np.random.Generator) -> Tensor:
    """The image with drawn brightness, contrast, saturation and colour balance, clamped to [0, 1]."""
    if amount == 0:
        return image
    brightness, contrast, saturation = (float(v) for v in generator.uniform(1 - amount, 1 + amount, 3))
    tint = torch.from_numpy(generator.uniform(1 - amount / 4, 1 + amount / 4, (3, 1, 1))).to(image)
    grey = image.mean(0, keepdim=True)
    image = torch.lerp(grey, image, saturation)
    return ((image - 0.5) * contrast + 0.5).mul(brightness * tint).clamp(0, 1)


def _rate(config: FitConfig, step: int) -> float:
    """Linear warm-up, then polynomial decay to 0 with power 0.9."""
    warm = min(1.0, (step + 1) / max(1, config.warmup))
    return float(config.learning_rate * warm * (1 - step / config.steps) ** 0.9)


def _groups(module: nn.Module, config: FitConfig) -> list[dict[str, Any]]:
    """Matrices and kernels decay; scales, shifts and biases do not."""
    decays = [p for p in module.parameters() if p.ndim >= 2]
    others = [p for p in module.parameters() if p.ndim < 2]
    return [{"params": decays, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]


def _copy(state: dict[str, Any]) -> dict[str, Tensor]:
    return {key: value.detach().clone() for key, value in state.items()}


def _average(average: dict[str, Tensor], weights: dict[str, Any], decay: float) -> None:
    for key, value in weights.items():
        if value.is_floating_point():
            average[key].lerp_(value.detach(), 1 - decay)
        else:
            average[key].copy_(value)


def _optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    entries = optimiser.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in entries.items() for key, value in entry.items()}


def _load_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
