"""Training a patch: Expectation over Transformation, loss over the right pixels, uphill steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch
from torch import Tensor

from segpatch.attack_config import AttackConfig, resolve, step_size
from segpatch.attack_step import Samples, Seen, Step, draw_samples, patch_gradient
from segpatch.compositing import centre_region, cover, paste
from segpatch.eot import generator_at
from segpatch.errors import SegpatchError
from segpatch.evaluation import predict
from segpatch.memory import out_of_memory
from segpatch.metrics import confusion_matrix, miou
from segpatch.models.folding import folded
from segpatch.models.victim import Victim
from segpatch.patch import Patch, random_pixels
from segpatch.processes import ALONE, Processes
from segpatch.transforms import as_float
from segpatch.types import LabelledImages
from segpatch.updates import AdamState, adam_start, adam_step, sign_step

_HELD_OUT = 0x68656C64  # "held": an address that no training step reaches


@dataclass(frozen=True)
class AttackState:
    """All that an attack needs to go on after `step` steps; chance is addressed by the step number."""

    step: int
    pixels: Tensor
    adam: AdamState
    best_pixels: Tensor
    best_miou: float


def train_patch(
    victims: Sequence[Victim],
    images: LabelledImages,
    config: AttackConfig,
    *,
    resume: AttackState | None = None,
    on_step: Callable[[Step], None] | None = None,
    on_state: Callable[[AttackState], None] | None = None,
    processes: Processes = ALONE,
) -> Patch:
    """The trained patch, for one network or for several at once (see `patch_gradient`).

    images: the training images. on_step is called after each step, on_state with what `resume` takes.
    Weights never get gradients. Where memory runs out, it goes on with half as many images per forward pass,
    which `Step.micro_batch` tells. processes: share the images of each step, and all return the patch of one.
    Raises BadInput where config, images and victims do not go together, and SegpatchError where memory does not
    suffice for one image or a number is not finite.
    """
    config = resolve(config, images, victims)
    assert config.steps and config.patch_size
    training, held_out = _split(len(images), config)
    fast = [folded(victim) for victim in victims]
    device = fast[0].device
    low, high = (torch.tensor(bound, device=device) for bound in config.range)
    state = _to(resume or _start(config), device)
    late = _late_steps(config.steps) if config.select == "best" else set()

    def drawn(step: int) -> Samples:
        return draw_samples(images, training, step, config, processes, device)

    def samples_of(step: int, ahead: list[Future[Samples]]) -> Samples:
        try:
            if ahead:
                return ahead.pop().result()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        return drawn(step)  # for want of memory beside the step before, or in it

    def tell(state: AttackState, seen: Seen) -> None:
        at_bound = (state.pixels <= low.view(3, 1, 1)) | (state.pixels >= high.view(3, 1, 1))
        step = seen.read(state.step, saturated=float(at_bound.float().mean()))
        _must_be_finite(math.isfinite(step.loss) and math.isfinite(step.gradient_norm), step.step)
        if on_state:
            on_state(state)
        if on_step:
            on_step(step)

    untold: tuple[AttackState, Seen] | None = None
    fitting = config
    with ThreadPoolExecutor(1) as pool:  # draws the samples of the next step while the network works
        coming = {state.step: pool.submit(drawn, state.step)} if state.step < config.steps else {}
        while state.step < config.steps:
            samples = partial(samples_of, state.step, [coming.pop(state.step)])
            if state.step + 1 < config.steps:
                coming[state.step + 1] = pool.submit(drawn, state.step + 1)
            gradient, seen = patch_gradient(fast, state.pixels, fitting, samples, processes, state.step)
            fitting = replace(config, micro_batch=seen.micro_batch)
            size = step_size(config, state.step)
            if config.stepper == "sign":
                pixels, adam = sign_step(state.pixels, gradient, size, low, high), state.adam
            else:
                pixels, adam = adam_step(state.pixels, gradient, state.adam, size, low, high)
            state = replace(state, step=state.step + 1, pixels=pixels, adam=adam)
            if state.step in late:
                _must_be_finite(bool(pixels.isfinite().all()), state.step)
                score = held_out_miou(fast, images, held_out, pixels.cpu(), processes)
                if score < state.best_miou:
                    state = replace(state, best_miou=score, best_pixels=pixels)
            # Reading numbers waits for the device: a GPU is told of once it has the next step to work on.
            if untold:
                tell(*untold)
            untold = (state, seen)
            if device.type == "cpu" or state.step == config.steps:
                tell(*untold)
                untold = None
    names = [victim.name for victim in victims]
    return Patch(
        (state.best_pixels if config.select == "best" else state.pixels).cpu(),
        name=f"{'+'.join(names)}/{config.preset}/s{config.seed}",
        preset=config.preset,
        trained_on=tuple(names),
        loss=config.loss,
        steps=config.steps,
        seed=config.seed,
        place=config.place,
        range=config.range,
        origin={"config": asdict(config), "victims": [asdict(victim.provenance) for victim in victims]},
    )


def _must_be_finite(finite: bool, step: int) -> None:
    if not finite:
        raise SegpatchError(
            f"the loss or its gradient is not finite after {step} steps; check the checkpoint and the "
            "preprocessing of the network, and train with --precision fp32"
        )


def held_out_miou(
    victims: Sequence[Victim],
    images: LabelledImages,
    indices: Sequence[int],
    pixels: Tensor,
    processes: Processes = ALONE,
) -> float:
    """Mean over the networks of the patched mIoU on some training images, patch in the centre."""

    def measured() -> list[Tensor]:
        """The confusion matrix (K, K) of each network over this process's share of the images."""
        out = []
        for victim in victims:
            classes = len(victim.label_classes)
            total = torch.zeros(classes, classes, dtype=torch.int64)
            with torch.inference_mode():
                for position in processes.share(range(len(indices))):
                    image, labels = images[indices[position]]
                    region = centre_region(labels.shape[0], labels.shape[1], pixels.shape[1], pixels.shape[2])
                    predicted = predict(victim, paste(as_float(image), pixels, region)[None])
                    total += confusion_matrix(predicted, cover(labels, region)[None], classes)[0]
            out.append(total)
        return out

    shares = zip(*processes.gathered(measured), strict=True)
    return float(torch.stack([miou(torch.stack(totals).sum(0)) for totals in shares]).mean())


def start_pixels(config: AttackConfig) -> Tensor:
    """The pixels (3, h, w) that a resolved config's training starts from."""
    assert config.patch_size
    pixels = random_pixels(config.patch_size, config.range, config.seed)
    if config.start == "grey":
        low, high = (torch.tensor(bound).view(3, 1, 1) for bound in config.range)
        pixels = ((low + high) / 2).expand_as(pixels).clone()
    return pixels


def _start(config: AttackConfig) -> AttackState:
    pixels = start_pixels(config)
    return AttackState(0, pixels, adam_start(pixels), pixels, float("inf"))


def _to(state: AttackState, device: torch.device) -> AttackState:
    adam = AdamState(state.adam.mean.to(device), state.adam.square.to(device), state.adam.steps)
    return replace(state, pixels=state.pixels.to(device), adam=adam, best_pixels=state.best_pixels.to(device))


def _split(count: int, config: AttackConfig) -> tuple[list[int], list[int]]:
    """Indices to train on, and those held out to choose the checkpoint."""
    mixed = generator_at(config.seed, _HELD_OUT).permutation(count).tolist()
    return sorted(mixed[config.held_out :]), sorted(mixed[: config.held_out])


def _late_steps(steps: int, checkpoints: int = 5) -> set[int]:
    """The steps after which a patch may be kept: the last, and four more in the last third."""
    return {steps - round(k * steps / 3 / checkpoints) for k in range(checkpoints)}
