"""An example of each command, in an order in which they can be run; its help shows it, and a test runs all."""

from __future__ import annotations

EXAMPLES: dict[str, str] = {
    "demo": "segpatch demo --out runs/demo",
    "models": "segpatch models --published",
    "data make": "segpatch data make streets --out data/streets --train 200 --val 50",
    "data check": "segpatch data check streets:data/streets",
    "fit": "segpatch fit --model pidnet-s --data streets:data/streets --steps 5000 --out runs/pidnet",
    "models check": "segpatch models check pidnet-s runs/pidnet/network.safetensors",
    "models download": "segpatch models download bisenetv2 --out weights",
    "models export": "segpatch models export pidnet-s --out pidnet-s.onnx --size 256x512",
    "attack": "segpatch attack --victim pidnet-s --data streets --preset strong --steps 400 --out runs/patch",
    "evaluate": "segpatch evaluate --patch runs/patch --victim segformer-b0 --data streets --out runs/other",
    "transfer": "segpatch transfer --victim pidnet-s --victim segformer-b0 --data streets --out runs/all",
    "report": "segpatch report runs/all --out runs/report",
    "patch list": "segpatch patch list runs --sort drop",
    "patch show": "segpatch patch show runs/patch --victim pidnet-s --data streets --images 20",
    "patch export": "segpatch patch export runs/patch --out patch.png",
    "show": "segpatch show --victim pidnet-s --data streets --patch runs/patch --image 1 --out scene.png",
    "bench": "segpatch bench --network pidnet-s --network segformer-b0 --size 512x1024",
    "study paper": "segpatch study paper --victim pidnet-s --victim segformer-b0 --data streets --out runs/study",
}


def example(command: str) -> str:
    """The last line of a command's help."""
    return f"Example: {EXAMPLES[command]}"
