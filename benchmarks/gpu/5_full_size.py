"""The paper's own size: a patch of 200x200 in crops of 1024x1024, measured on streets of 1024x2048, and the same
patches on these at a quarter to three times the size (on few images: three times is nine times the pixels).

python benchmarks/gpu/5_full_size.py --out DIR
"""

from __future__ import annotations

from fitted import options, recipe, study

from segpatch.studies.paper import PaperPlan

NETWORKS = ("pidnet-s", "pidnet-l", "bisenetv2", "segformer-b0")


def main() -> None:
    asked = options(__doc__, height=1024, train=200, val=50, fit_steps=400, steps=150)
    side = round(200 / 1024 * asked.height)
    plan = PaperPlan(
        presets=("released", "paper"),
        seeds=(0,),
        overrides={
            "steps": asked.steps,
            "batch_size": 6,
            "crop": (asked.height, asked.height),
            "patch_size": (side, side),
        },
        only=("matrix", "curves", "sizes", "locality"),
        scales=(0.25, 0.5, 1.0, 2.0, 3.0),
        size_images=8,
        curve_images=16,
        precision="bf16",
        batch_size=4,
    )
    config = recipe(
        asked, batch_size=8, crop=(asked.height // 2, asked.height // 2), scales=(0.5, 1.5), label_stride=4
    )
    study(asked, asked.network or NETWORKS, plan, config)


if __name__ == "__main__":
    main()
