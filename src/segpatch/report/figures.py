"""Figures of a study as SVG: agreement of networks, curves, damage by size, by place and by distance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from segpatch.names import safe_name
from segpatch.plots import BLUE, HEAT, INK, RED, STYLE, as_svg, figure, plain_text, text_on
from segpatch.published import Curve

PUBLISHED = "arXiv:2502.16012, Fig. 2: Cityscapes training crops"
_PANELS = 4
"""Classes side by side."""


def alignment_svg(cell: dict[str, Any]) -> bytes:
    """Cosines between networks as a square, each network with itself on the diagonal."""
    names, cosine = cell["victims"], np.array(cell["cosine"], float)  # None, without a gradient, becomes NaN
    np.fill_diagonal(cosine, np.array(cell["itself"], float))
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(1.6 + 0.9 * len(names), 1.2 + 0.55 * len(names)), layout="constrained")
        axes = drawing.add_subplot()
        shade = np.clip(np.nan_to_num(cosine), 0, 1)
        axes.imshow(shade, cmap=HEAT, vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(*cosine.shape):
            value, ink = float(cosine[row, column]), text_on(to_hex(HEAT(float(shade[row, column]))))
            axes.text(column, row, figure(None if np.isnan(value) else value), color=ink, ha="center", va="center")
        _names(axes, names)
        return as_svg(drawing)


def curve_svg(curve: dict[str, Any], published: Curve | None = None) -> bytes:
    """mIoU by step on held-out images and on training crops, above loss, share of right pixels and gradient norm.

    published: drawn beside, over the same share of the training.
    """
    points = curve["points"]
    steps = [point["step"] for point in points]
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(4.6, 5.4), layout="constrained")
        upper, *others = drawing.subplots(4, 1, sharex=True, height_ratios=(2, 1, 1, 1))
        clean = curve["clean_miou"]
        low = [clean - point["ci95"][1] for point in points]
        high = [clean - point["ci95"][0] for point in points]
        upper.fill_between(steps, low, high, color=BLUE, alpha=0.2, linewidth=0)
        _both(upper, steps, [point["miou"] for point in points], [point["crop_miou"] for point in points])
        if published:
            _published(upper, steps, published.miou)
        upper.set_ylabel("mIoU")
        keys = (("loss", "loss"), ("correct", "pixels right"), ("gradient_norm", "gradient norm"))
        for axes, (key, label) in zip(others, keys, strict=True):
            known = [(point["step"], point[key]) for point in points if point[key] is not None]
            axes.plot(*zip(*known, strict=True), color=INK)
            axes.set_ylabel(label)
        for axes in (upper, *others):
            axes.grid(color="#eceef0")
        others[-1].set_xlabel("step")
        drawing.align_ylabels()
        drawing.legend(loc="outside upper left", frameon=False, fontsize=8)
        return as_svg(drawing)


def class_curves_svg(curve: dict[str, Any], published: Curve | None = None) -> bytes:
    """IoU by step on held-out images and on training crops, a panel per class; published as in `curve_svg`."""
    points, classes = curve["points"], curve["classes"]
    steps = [point["step"] for point in points]
    rows = -(-len(classes) // _PANELS)
    with mpl.rc_context({**STYLE, "font.size": 8.0}):
        height = 1 + 1.15 * rows  # margins given: working them out takes longer than all the rest
        drawing = Figure(figsize=(1.6 * _PANELS, height))
        drawing.subplots_adjust(0.1, 0.5 / height, 0.99, 1 - 0.5 / height, wspace=0.12, hspace=0.45)
        panels = list(drawing.subplots(rows, _PANELS, sharex=True, sharey=True, squeeze=False).flat)
        for number, (axes, name) in enumerate(zip(panels, classes, strict=False)):
            held_out, crops = ([_or_nan(point[key][number]) for point in points] for key in ("iou", "crop_iou"))
            _both(axes, steps, held_out, crops)
            if published and name in published.iou:
                _published(axes, steps, published.iou[name])
            axes.set(ylim=(0, 1))
            axes.locator_params(axis="x", nbins=2)
            axes.set_title(plain_text(name), fontsize=8)
            axes.grid(color="#eceef0")
        for axes in panels[len(classes) :]:
            axes.set_visible(False)
        shown = [zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels[: len(classes)]]
        lines = {label: line for pairs in shown for line, label in pairs}
        drawing.legend(lines.values(), lines, loc="upper left", frameon=False, ncols=3)
        drawing.supxlabel("step", fontsize=8)
        drawing.supylabel("IoU", x=0.005, fontsize=8)
        return as_svg(drawing)


def _both(axes: Any, steps: Sequence[int], held_out: Sequence[float], crops: Sequence[float]) -> None:
    axes.plot(steps, held_out, color=BLUE, label="held-out images")
    axes.plot(steps, crops, color=RED, linestyle="-.", label="training crops")


def _published(axes: Any, steps: Sequence[int], values: Sequence[float]) -> None:
    """A curve of Fig. 2, stretched over our steps."""
    at = np.linspace(steps[0], steps[-1], len(values))
    axes.plot(at, values, color=INK, linestyle="--", linewidth=1, label=PUBLISHED)


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def sizes_svg(cell: dict[str, Any]) -> bytes:
    """Drop beyond the random control by scale of the images, the patch fixed in pixels and in share."""
    rows = [row for row in cell["rows"] if row["images"] == "unseen" and row["frame"] == "frame"]
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(4.4, 2.7), layout="constrained")
        axes = drawing.add_subplot()
        for fixed, colour, marker in (("pixels", BLUE, "o"), ("share", RED, "D")):
            shown = [r for r in rows if "left_out" not in r and (r["fixed"] == fixed or r["scale"] == 1)]
            shown.sort(key=lambda row: row["scale"])
            _with_intervals(
                axes,
                [row["scale"] for row in shown],
                [row["over_random"] for row in shown],
                [row["over_random_ci95"] for row in shown],
                color=colour,
                marker=marker,
                label=f"patch the same in {fixed}",
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.axhline(0, color="#9aa0a8", linewidth=0.8)
        axes.set(xlabel="scale of the images", ylabel="drop beyond random")
        axes.grid(color="#eceef0")
        axes.legend(frameon=False, fontsize=8)
        return as_svg(drawing)


def places_svg(cell: dict[str, Any]) -> bytes:
    """Drop beyond the random control at each place of the grid, as seen in the image."""
    grid = np.full((cell["rows"], cell["columns"]), np.nan)
    for place in cell["places"]:
        grid[place["row"], place["column"]] = place["over_random"]
    top = max(0.05, float(np.nanmax(grid)))
    with mpl.rc_context(STYLE):
        size = (1.2 + 0.62 * cell["columns"], 0.9 + 0.5 * cell["rows"])
        drawing = Figure(figsize=size, layout="constrained")
        axes = drawing.add_subplot()
        shade = np.clip(np.nan_to_num(grid) / top, 0, 1)
        axes.imshow(shade, cmap=HEAT, vmin=0, vmax=1, aspect="auto")
        for row, column in np.ndindex(*grid.shape):
            value, ink = float(grid[row, column]), text_on(to_hex(HEAT(float(shade[row, column]))))
            axes.text(column, row, figure(value), color=ink, ha="center", va="center", fontsize=7.5)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_xlabel("drop beyond random by where the patch lies in the image")
        return as_svg(drawing)


def _with_intervals(
    axes: Any, x: Sequence[float], y: Sequence[float], intervals: Sequence[Sequence[float]], **look: Any
) -> None:
    """A line with the intervals of its points."""
    bounds = np.array(intervals, float).reshape(-1, 2).T
    below, above = np.maximum(np.array(y) - bounds[0], 0), np.maximum(bounds[1] - np.array(y), 0)
    axes.errorbar(x, y, yerr=[below, above], capsize=2, linewidth=1.4, markersize=4, **look)


def _names(axes: Any, names: Sequence[str]) -> None:
    shown = [plain_text(name) for name in names]
    axes.set_xticks(range(len(names)), shown, rotation=20, ha="left")
    axes.set_yticks(range(len(names)), shown)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def distance_figures(cells: Sequence[dict[str, Any]]) -> list[tuple[str, str, bytes]]:
    """Damage by distance, a figure per preset: (name, caption, SVG)."""
    by_preset: dict[str, list[dict[str, Any]]] = {}
    for cell in cells:
        by_preset.setdefault(cell["patch"].split("/", 1)[-1], []).append(cell)
    return [
        (f"locality-{safe_name(preset)}", f"{preset}, each patch on its own network", distance_svg(some))
        for preset, some in by_preset.items()
    ]


def place_figures(cells: Sequence[dict[str, Any]]) -> list[tuple[str, str, bytes]]:
    """Drop by place, a figure per patch and network: (name, caption, SVG)."""
    captions = [f"{cell['patch']} on {cell['victim']}" for cell in cells]
    return [
        (f"places-{safe_name(caption)}", caption, places_svg(cell))
        for caption, cell in zip(captions, cells, strict=True)
    ]


def distance_svg(cells: Sequence[dict[str, Any]]) -> bytes:
    """Drop of pixel accuracy beyond the random control by distance from the patch edge, a line per network."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(4.8, 3.0), layout="constrained")
        axes = drawing.add_subplot()
        for number, cell in enumerate(cells):
            bins = [one for one in cell["bins"] if one["pixel_accuracy"]["value"] is not None]
            at = np.arange(len(bins)) + 0.08 * (number - (len(cells) - 1) / 2)
            _with_intervals(
                axes,
                at.tolist(),
                [one["pixel_accuracy"]["value"] for one in bins],
                [one["pixel_accuracy"]["ci95"] for one in bins],
                marker="oDsXv^P"[number % 7],
                linestyle="--" if cell["family"] == "transformer" else "-",
                label=plain_text(cell["victim"]),
            )
        uppers = [one["upper"] for one in max((cell["bins"] for cell in cells), key=len)]
        names = [f"to {upper:g}" for upper in uppers if upper is not None and np.isfinite(upper)]
        axes.set_xticks(range(len(uppers)), [*names, "beyond"][: len(uppers)])
        axes.axhline(0, color="#9aa0a8", linewidth=0.8)
        axes.set(xlabel="distance from the patch edge, in patch widths", ylabel="pixel accuracy lost")
        axes.grid(axis="y", color="#eceef0")
        drawing.legend(loc="outside upper left", frameon=False, ncols=2, fontsize=8)
        return as_svg(drawing)
