"""Every other ablation on PIDNet-M, three seeds, on streets: scenes, step size, steps, batch, place, patch size.

python benchmarks/gpu/6_ablations.py --out DIR [--ablation scenes]
"""

from __future__ import annotations

from fitted import options, recipe, study

from segpatch.studies.paper import PaperPlan
from segpatch.studies.paper.plan import ABLATIONS

NETWORKS = ("pidnet-m",)


def main() -> None:
    asked = options(
        __doc__, choices={"ablation": ABLATIONS}, height=256, train=600, val=100, fit_steps=500, steps=120
    )
    plan = PaperPlan(
        only=("ablations",),
        overrides={"steps": asked.steps, "batch_size": 6},
        ablations=tuple(asked.ablation or ()),
        size_images=16,
        precision="bf16",
        batch_size=16,
    )
    study(asked, asked.network or NETWORKS, plan, recipe(asked))


if __name__ == "__main__":
    main()
