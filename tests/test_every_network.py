"""Every network at real sizes: odd images, and one attack step on 512x1024 within the memory of a workstation."""

import json
import subprocess
import sys

import pytest

from segpatch.models.networks import MODELS

MEMORY_GIB = 24
STEP = """
import json, resource, sys
import torch
from segpatch.attack import train_patch
from segpatch.attack_config import AttackConfig
from segpatch.data.classes import CITYSCAPES
from segpatch.models.networks import MODELS
from segpatch.models.victim import Victim

name, source = sys.argv[1:]
torch.manual_seed(0)
module = MODELS[name].layout(source).build(19, auxiliary=False).to(memory_format=torch.channels_last)
victim = Victim(
    module,
    size_multiple=module.size_multiple,
    size_offset=getattr(module, "size_offset", 0),
    align_corners=module.output_align_corners,
    classes=CITYSCAPES,
)
module.train()  # norms that know nothing of their input let deep random networks overflow
for norm in module.modules():
    if isinstance(norm, torch.nn.BatchNorm2d):
        norm.momentum = None
with torch.no_grad():
    victim.raw(torch.rand(2, 3, 256, 256))
module.eval()
with torch.inference_mode():
    odd = victim(torch.rand(1, 3, 517, 1031))
image = torch.randint(256, (3, 512, 1024), dtype=torch.uint8)
labels = torch.randint(19, (512, 1024), dtype=torch.uint8)
config = AttackConfig(steps=1, batch_size=1, crop=(512, 1024), scales=(1.0, 1.0), patch_size=(100, 100))
before = {}
patch = train_patch([victim], [(image, labels)], config, on_step=lambda step: before.update(step._asdict()))
print(json.dumps({
    "odd": list(odd.shape),
    "finite": bool(odd.isfinite().all()),
    "gradient": before["gradient_norm"],
    "gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
}))
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "source"), [(name, layout.source) for name, spec in MODELS.items() for layout in spec.layouts]
)
def test_odd_sizes_and_an_attack_step(name, source):
    done = subprocess.run([sys.executable, "-c", STEP, name, source], capture_output=True, text=True, check=True)
    facts = json.loads(done.stdout)
    assert facts["odd"] == [1, 19, 517, 1031]
    assert facts["finite"]
    assert facts["gradient"] > 0
    assert facts["gib"] < MEMORY_GIB
