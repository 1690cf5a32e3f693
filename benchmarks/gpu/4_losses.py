"""The loss ablation on PIDNet-S and PIDNet-M, every loss, three seeds, equal steps, on streets.

python benchmarks/gpu/4_losses.py --out DIR
"""

from __future__ import annotations

from dataclasses import replace

from fitted import RECIPE, options, study

from segpatch.studies.paper import PaperPlan

NETWORKS = ("pidnet-m", "pidnet-s")


def main() -> None:
    asked = options(__doc__, height=256, train=600, val=100, fit_steps=500, steps=200)
    networks = asked.network or NETWORKS
    plan = PaperPlan(
        only=("losses",),
        overrides={"steps": asked.steps, "batch_size": 6},
        ablation_victims=tuple(networks),
        precision="bf16",
        batch_size=16,
    )
    config = replace(RECIPE, steps=asked.fit_steps, validate_every=asked.fit_steps)
    study(asked, networks, plan, config)


if __name__ == "__main__":
    main()
