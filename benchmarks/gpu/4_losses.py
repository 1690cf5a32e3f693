"""The loss ablation, every loss, three seeds, equal steps, on streets: of one network a run, to stay in time.

python benchmarks/gpu/4_losses.py --out DIR [--network pidnet-m]
"""

from __future__ import annotations

from fitted import options, recipe, study

from segpatch.studies.paper import PaperPlan

NETWORKS = ("pidnet-s",)


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
    study(asked, networks, plan, recipe(asked))


if __name__ == "__main__":
    main()
