"""The matrix of ten networks on streets, three seeds: the paper's seven, DeepLabV3+, HRNet and DDRNet.

python benchmarks/gpu/3_networks.py --out DIR
"""

from __future__ import annotations

from fitted import options, recipe, study

from segpatch.studies.paper import PaperPlan

NETWORKS = (
    "pidnet-s",
    "pidnet-m",
    "pidnet-l",
    "icnet-r50",
    "bisenetv1-r18",
    "bisenetv2",
    "segformer-b0",
    "deeplabv3plus-r18",
    "hrnet-w18-small",
    "ddrnet-23-slim",
)


def main() -> None:
    asked = options(__doc__, height=256, train=600, val=100, fit_steps=400, steps=200)
    plan = PaperPlan(
        presets=("released", "strong"),
        overrides={"steps": asked.steps, "batch_size": 6},
        only=("matrix", "drives", "alignment", "locality"),
        precision="bf16",
        batch_size=16,
    )
    study(asked, asked.network or NETWORKS, plan, recipe(asked))


if __name__ == "__main__":
    main()
