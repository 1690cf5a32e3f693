"""mmsegmentation's names for what DDRNet and PIDNet share, to follow the removal of the prefix `backbone.`."""

from __future__ import annotations

import re
from collections.abc import Callable

from segpatch.models.layouts.layout import Rules


def plus(amount: int, template: str) -> Callable[[re.Match[str]], str]:
    """A replacement with the number that the pattern's last group caught, `amount` higher, in place of {}."""
    return lambda match: match.expand(template).format(int(match[match.lastindex or 0]) + amount)


STEM: Rules = (
    (r"^stem\.0\.conv\.", "conv1.0."),
    (r"^stem\.0\.bn\.", "conv1.1."),
    (r"^stem\.1\.conv\.", "conv1.3."),
    (r"^stem\.1\.bn\.", "conv1.4."),
    (r"^stem\.2\.", "layer1."),
    (r"^stem\.4\.", "layer2."),
)
BLOCKS: Rules = (  # once the stages have their names
    (r"^(layer.*\.conv\d)\.conv\.", r"\1."),
    (r"^(layer.*)\.conv(\d)\.bn\.", r"\1.bn\2."),
    (r"\.downsample\.conv\.", ".downsample.0."),
    (r"\.downsample\.bn\.", ".downsample.1."),
)
POOLING: Rules = (
    (r"^spp\.scales\.0\.bn\.", "spp.scale0.0."),
    (r"^spp\.scales\.0\.conv\.", "spp.scale0.2."),
    (r"^spp\.scales\.(\d)\.1\.bn\.", r"spp.scale\1.1."),
    (r"^spp\.scales\.(\d)\.1\.conv\.", r"spp.scale\1.3."),
    (r"^spp\.processes\.(\d)\.", plus(1, "spp.process{}.")),
    (r"^spp\.processes\.", "spp.scale_process."),
    (r"^(spp\.(?:scale_process|process\d|compression|shortcut))\.bn\.", r"\1.0."),
    (r"^(spp\.(?:scale_process|process\d|compression|shortcut))\.conv\.", r"\1.2."),
)
