"""How far do adversarial patches break real-time semantic segmentation, and do they travel between networks?"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from segpatch.attack import train_patch
    from segpatch.attack_config import PRESETS, AttackConfig
    from segpatch.data import open_data
    from segpatch.evaluation import Scores, evaluate
    from segpatch.losses import LOSSES
    from segpatch.models.load import load_network, load_victim
    from segpatch.models.networks import MODELS
    from segpatch.models.victim import Victim
    from segpatch.patch import Patch, load_patch
    from segpatch.studies.matrix import run_matrix
    from segpatch.studies.planned import MatrixPlan
    from segpatch.transfer import TransferMatrix, transfer_matrix

# Loaded when first asked for: `import segpatch` and `segpatch --help` do not wait for torch.
_HOMES = {
    "AttackConfig": "attack_config",
    "LOSSES": "losses",
    "MODELS": "models.networks",
    "MatrixPlan": "studies.planned",
    "PRESETS": "attack_config",
    "Patch": "patch",
    "Scores": "evaluation",
    "TransferMatrix": "transfer",
    "Victim": "models.victim",
    "evaluate": "evaluation",
    "load_network": "models.load",
    "load_patch": "patch",
    "load_victim": "models.load",
    "open_data": "data",
    "run_matrix": "studies.matrix",
    "train_patch": "attack",
    "transfer_matrix": "transfer",
}

__all__ = [
    "LOSSES",
    "MODELS",
    "PRESETS",
    "AttackConfig",
    "MatrixPlan",
    "Patch",
    "Scores",
    "TransferMatrix",
    "Victim",
    "evaluate",
    "load_network",
    "load_patch",
    "load_victim",
    "open_data",
    "run_matrix",
    "train_patch",
    "transfer_matrix",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'segpatch' has no attribute {name!r}")
    return getattr(importlib.import_module(f"segpatch.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
