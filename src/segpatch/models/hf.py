"""Victims from Hugging Face: any semantic segmentation network of transformers, by hub id or local folder.

Weights are read as all others are, tensors only and every key accounted for; code that comes with a checkpoint is
never run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from segpatch.data.classes import CAMVID, CITYSCAPES, ClassSet, distinct_colour
from segpatch.errors import BadInput
from segpatch.models.checkpoints import read_checkpoint
from segpatch.models.hf_files import CONFIG, Files, first_line, hf_files, package, quiet, sha256_of
from segpatch.models.victim import IMAGENET_MEAN, IMAGENET_STD, Provenance, Victim

PREPROCESSOR = "preprocessor_config.json"

# Model types, of a network or of its backbone.
CNNS = ("convnext", "convnextv2", "mobilenet_v2", "resnet")
FIXED_SIZE = ("beit", "data2vec-vision", "dpt")  # the input has one size
_SMALL = 10**7  # weights that may be made before it is clear that they are missing
_DEEPEST = 1000  # layers of a stage
PATCHED = ("sapiens2", "tipsv2_dpt")  # what is left of the input beside whole patches would be lost


def hf_victim(source: str) -> Victim:
    """The victim of `hf:SOURCE`; source is a local folder, or an id on the hub, which is downloaded to the cache.

    Classes are those that the checkpoint names; mean, std, value range and channel order those of its
    preprocessing (not its size: images are not resized). A network with one input size gets sliding windows.
    Raises Missing without the extra `hf` or where no such network can be had; BadInput where it gives no logits
    for each pixel, or where its weights are not just those of the network.
    """
    transformers = package("transformers", source)
    files = hf_files(source)
    config = _config(transformers, files)
    weights = files.weights()
    network = _network(transformers, source, config, weights)
    name = Path(source).resolve().name
    window, multiple = _geometry(config)
    expected = _expected_input(files)
    return Victim(
        network.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
        mean=expected.mean,
        std=expected.std,
        name=name,
        channel_order=expected.channel_order,
        value_range=expected.value_range,
        size_multiple=multiple,
        window=window,
        stride=window and window * 2 // 3,  # as BEiT (arXiv:2106.08254) is evaluated: 426 of 640
        classes=_class_set(config, name),
        provenance=Provenance(
            network=config.model_type,
            family="cnn" if _backbone(config).model_type in CNNS else "transformer",
            checkpoint=f"{files.origin}/{weights[0].name}",
            sha256=sha256_of(weights),
            preprocessing=expected.note,
        ),
    )


class Logits(nn.Module):
    """A semantic segmentation network of transformers that returns its logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Class logits (B, K, h, w) at the network's own stride, of a normalised batch (B, 3, H, W)."""
        logits: Tensor = self.network(pixel_values=x, return_dict=True).logits
        return logits


def _config(transformers: Any, files: Files) -> Any:
    """The checkpoint's configuration; BadInput where it is of no network with logits for each pixel."""
    source = files.source
    path, about = files.find(CONFIG), files.table(CONFIG)
    assert path is not None and about is not None
    if deep := [key for key, value in _numbers(about) if ("depth" in key or "layers" in key) and value > _DEEPEST]:
        raise BadInput(f"hf:{source}: its {CONFIG} asks for more than {_DEEPEST} layers ({deep[0]})")
    try:
        config = transformers.AutoConfig.from_pretrained(
            path.parent, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        if "auto_map" in about:
            raise BadInput(f"hf:{source} is built by code of its own, which segpatch does not run") from error
        raise BadInput(f"hf:{source}: transformers cannot read its {CONFIG} ({first_line(error)})") from error
    if type(config) in transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING:
        return config
    masks = (
        transformers.MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING,
        transformers.MODEL_FOR_INSTANCE_SEGMENTATION_MAPPING,
    )
    if any(type(config) in mapping for mapping in masks):
        raise BadInput(
            f"hf:{source} ({config.model_type}) classifies masks: it gives no logits for each pixel, which the "
            "attacks need; choose a network such as SegFormer, UPerNet or DPT"
        )
    raise BadInput(f"hf:{source} ({config.model_type}) is no semantic segmentation network")


def _numbers(content: Any) -> Iterator[tuple[str, float]]:
    """(key, number) of nested JSON; those of a list have its key."""
    left = [("", content)]
    while left:
        key, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(key, one) for one in value]
        elif isinstance(value, int | float):
            yield key, value


def _network(transformers: Any, source: str, config: Any, weights: tuple[Path, ...]) -> Logits:
    """The network with its weights, float64 where they are, else float32."""
    state = {key: value for path in weights for key, value in read_checkpoint(path)[0].items()}
    wide = any(value.dtype == torch.float64 for value in state.values())
    network_class = transformers.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING[type(config)]
    try:
        with torch.device("meta"):  # where it takes up no memory
            asked = sum(value.numel() for value in network_class(config).state_dict().values())
    except Exception as error:
        raise BadInput(f"hf:{source}: transformers cannot build the network ({first_line(error)})") from error
    held = sum(value.numel() for value in state.values())
    if asked > 2 * held + _SMALL:
        raise BadInput(f"hf:{source}: its {CONFIG} asks for {asked} weights, it holds {held}; download it again")
    try:
        logging = transformers.utils.logging
        with quiet(logging), _no_bars(logging):  # what it would report is judged below
            network, report = network_class.from_pretrained(
                None,
                config=config,
                state_dict=state,
                dtype=torch.float64 if wide else torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are reported, as the others are
            )
    except Exception as error:
        raise BadInput(f"hf:{source}: transformers cannot build the network ({first_line(error)})") from error
    missing, unknown, shapes = (
        sorted(map(str, report[f"{kind}_keys"])) for kind in ("missing", "unexpected", "mismatched")
    )
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unknown or shapes:
        first = [*missing, *unknown, *shapes][0]
        raise BadInput(
            f"hf:{source} does not hold the weights of a {config.model_type} for semantic segmentation: "
            f"{len(missing)} keys missing, {len(unknown)} unknown, {len(shapes)} of another shape ({first})"
        )
    return Logits(network)


@contextmanager
def _no_bars(logging: Any) -> Iterator[None]:
    """No progress bars from transformers."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _backbone(config: Any) -> Any:
    return getattr(config, "backbone_config", None) or config


def _geometry(config: Any) -> tuple[int | None, int]:
    """Window (None: the whole image) and the number that sides are padded to multiples of."""
    if config.model_type in FIXED_SIZE and isinstance(config.image_size, int):
        return config.image_size, config.image_size
    if config.model_type in PATCHED:
        patch = _backbone(config).patch_size
        return None, patch if isinstance(patch, int) else max(patch)
    return None, 1


class ExpectedInput(NamedTuple):
    """The input that a checkpoint wants, as the fields of Victim say it; note: what of it is only assumed."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    value_range: float = 1.0
    channel_order: str = "rgb"
    note: str | None = None


def _expected_input(files: Files) -> ExpectedInput:
    about = files.table(PREPROCESSOR)
    if about is None:
        return ExpectedInput(
            IMAGENET_MEAN, IMAGENET_STD, note=f"mean and std of ImageNet: no {PREPROCESSOR} at hand"
        )
    mean, std, flips = (about.get(key) for key in ("image_mean", "image_std", "do_flip_channel_order"))
    note = None
    # MobileViT's, which flips the channels, has neither key and does not normalise.
    if not about.get("do_normalize", mean is not None or flips is None):
        mean, std = 0, 1
    elif mean is None or std is None:
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        note = f"mean and std of ImageNet: {PREPROCESSOR} has none"
    try:
        factor = float(about.get("rescale_factor", 1 / 255)) if about.get("do_rescale", True) else 1.0
        return ExpectedInput(_triple(mean), _triple(std), round(255 * factor, 6), "bgr" if flips else "rgb", note)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"hf:{files.source}: {PREPROCESSOR} cannot be used ({error})") from error


def _triple(value: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, value if isinstance(value, list | tuple) else [value] * 3)
    return red, green, blue


def _class_set(config: Any, name: str) -> ClassSet:
    """The classes by their names; Cityscapes where 19 are not named, as for every other checkpoint."""
    labels = config.id2label
    names = [str(labels.get(index, f"LABEL_{index}")) for index in range(len(labels))]
    if names == [f"LABEL_{index}" for index in range(len(CITYSCAPES))]:
        return CITYSCAPES
    for known in (CITYSCAPES, CAMVID):
        if list(map(_spelling, names)) == list(map(_spelling, known.names)):
            return known
    unique = tuple(n if names.count(n) == 1 else f"{n} ({index})" for index, n in enumerate(names))
    return ClassSet(name, unique, tuple(distinct_colour(index) for index in range(len(names))))


def _spelling(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
