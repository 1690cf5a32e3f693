"""Figures as SVG, from results and logs alone: the matrix, the classes of a network, a training curve.

Text stays text, and the same data gives the same bytes.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from segpatch.names import printable
from segpatch.results import CellRecord, TransferResult

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "segpatch",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
INK, BLUE, RED = "#1c1f24", "#0b5c93", "#c2410c"
_SHADES = ["#fffbe6", "#fed687", "#fb9a3c", "#d1550e", "#8c2d04", "#4a1505"]
HEAT = LinearSegmentedColormap.from_list("heat", _SHADES)
"""Lightness falls all the way, so the order is seen without telling hues apart, and in grey print."""
_LEAST_TOP = 0.05
_MARKS = {"clean": ("o", INK, INK), "own": ("X", RED, RED), "foreign": ("D", BLUE, "none")}
SIGNS = {"transfers": "▲", "does not": "≈", "undecided": "?"}


class Series(NamedTuple):
    """IoU of each class under one patch. role: "clean", "own" or "foreign"."""

    role: str
    name: str
    values: Sequence[float | None]


def heat_colour(value: float | None, top: float) -> tuple[str, str]:
    """(background, text) as "#rrggbb" of a drop between 0 and `top`, clamped; grey without a value."""
    if value is None:
        return "#d9dce1", text_on("#d9dce1")
    share = min(1.0, max(0.0, value / top)) if top > 0 else 0.0
    background = to_hex(HEAT(share))
    return background, text_on(background)


def text_on(background: str) -> str:
    """Black or white, whichever stands out more from a "#rrggbb" background: always 4.5 to 1 or better."""
    return max(("#000000", "#ffffff"), key=lambda ink: contrast(ink, background))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two "#rrggbb" colours, 1 to 21. Source: WCAG 2.2, relative luminance."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def heat_top(result: TransferResult) -> float:
    """The drop at the dark end of the colour scale: the largest of the matrix, at least 0.05."""
    return max([_LEAST_TOP, *(cell.miou_drop for cell in result.cells if cell.miou_drop is not None)])


def figure(value: float | None, *, plus: bool = False) -> str:
    """A fraction with three decimals and a true minus; an en dash where there is none."""
    if value is None:
        return "–"
    text = f"{value:+.3f}" if plus else f"{value:.3f}"
    return text.replace("-0.000", "0.000").replace("+0.000", "0.000").replace("-", "\N{MINUS SIGN}")


def verdict_of(result: TransferResult, cell: CellRecord) -> str | None:
    """The verdict of a trained patch on a network that is not its own; None for every other cell."""
    trained = any(patch.name == cell.patch and patch.kind == "trained" for patch in result.patches)
    return cell.over_random.verdict if trained and not cell.white_box and cell.over_random else None


def matrix_svg(result: TransferResult, patches: Sequence[str]) -> bytes:
    """The matrix of mIoU drops with intervals: the named patches as rows, networks as columns."""
    victims, top = [victim.name for victim in result.victims], heat_top(result)
    longest = max((len(name) for name in patches), default=0)
    size = (max(4.5, 1.6 + 0.075 * longest + 1.25 * len(victims)), 1.5 + 0.55 * len(patches))
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=size, layout="constrained")
        axes = drawing.add_subplot()
        for y, patch in enumerate(patches):
            for x, victim in enumerate(victims):
                _matrix_cell(axes, x, y, result, result.cell(patch, victim), top)
        axes.set(xlim=(-0.5, len(victims) - 0.5), ylim=(len(patches) - 0.5, -0.5))
        axes.set_xticks(range(len(victims)), [*map(printable, victims)], rotation=20, ha="left", parse_math=False)
        axes.set_yticks(range(len(patches)), [*map(printable, patches)], parse_math=False)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        signs = ", ".join(f"{sign} {name}" for name, sign in SIGNS.items())
        axes.set_xlabel(f"mIoU drop [95 % interval]; framed: trained on it\n{signs}", fontsize=8)
        return as_svg(drawing)


def classes_svg(classes: Sequence[str], series: Sequence[Series]) -> bytes:
    """IoU per class: a row a class, a mark a series, a line between the lowest and the highest."""
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(4.8, 0.9 + 0.2 * len(series) + 0.27 * len(classes)), layout="constrained")
        axes = drawing.add_subplot()
        rows = np.arange(len(classes))
        table = np.array([[np.nan if v is None else v for v in one.values] for one in series])
        for row in rows[~np.isnan(table).all(0)]:
            ends = [np.nanmin(table[:, row]), np.nanmax(table[:, row])]
            axes.plot(ends, [row, row], color="#c8ccd2", zorder=1)
        for one, values in zip(series, table, strict=True):
            marker, edge, face = _MARKS[one.role]
            look: dict[str, Any] = {
                "marker": marker,
                "edgecolors": edge,
                "facecolors": face,
                "linewidths": 1.2,
            }
            axes.scatter(values, rows, s=34, zorder=2, label=plain_text(one.name), **look)
        axes.set_yticks(rows, [*map(printable, classes)], parse_math=False)
        axes.set(xlim=(-0.02, 1.02), ylim=(len(classes) - 0.4, -0.6), xlabel="IoU outside the patch")
        axes.grid(axis="x", color="#e6e8eb")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        drawing.legend(loc="outside upper left", frameon=False, ncols=1, fontsize=8)
        return as_svg(drawing)


def training_svg(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Loss and share of correct pixels by step, one above the other, from the rows of steps.jsonl."""
    steps = [row["step"] for row in rows]
    with mpl.rc_context(STYLE):
        drawing = Figure(figsize=(4.4, 2.9), layout="constrained")
        upper, lower = drawing.subplots(2, 1, sharex=True)
        panels = ((upper, "correct", "pixels right", BLUE), (lower, "loss", "loss", RED))
        for axes, key, label, colour in panels:
            values = np.array([np.nan if row.get(key) is None else row[key] for row in rows], float)
            axes.plot(steps, values, color=colour, alpha=0.35, linewidth=0.8)
            axes.plot(steps, _smooth(values), color=colour, linewidth=1.6)
            axes.set_ylabel(label)
            axes.grid(color="#eceef0")
        upper.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}" if value >= 0.1 else f"{value:.1%}")
        lower.set_xlabel("step")
        drawing.align_ylabels()
        return as_svg(drawing)


def _matrix_cell(axes: Any, x: int, y: int, result: TransferResult, cell: CellRecord, top: float) -> None:
    background, ink = heat_colour(cell.miou_drop, top)
    axes.add_patch(Rectangle((x - 0.49, y - 0.48), 0.98, 0.96, facecolor=background))
    if cell.white_box:
        axes.add_patch(Rectangle((x - 0.45, y - 0.42), 0.9, 0.84, fill=False, edgecolor=ink, linewidth=1.6))
    sign = SIGNS.get(verdict_of(result, cell) or "", "")
    low, high = cell.ci95
    axes.text(x, y - 0.13, f"{figure(cell.miou_drop)} {sign}".strip(), color=ink, ha="center", va="center")
    axes.text(x, y + 0.22, f"[{figure(low)}, {figure(high)}]", color=ink, ha="center", va="center", fontsize=7)


def _smooth(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The running mean over a twentieth of the steps, values without a number left out."""
    width = max(1, len(values) // 20)
    known = ~np.isnan(values)
    total = np.convolve(np.where(known, values, 0.0), np.ones(width), "same")
    count = np.convolve(known.astype(float), np.ones(width), "same")
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def as_svg(drawing: Figure) -> bytes:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the reader's fonts draw the text
        drawing.savefig(out, format="svg", facecolor="white", metadata={"Date": None})
    return out.getvalue()


def plain_text(text: str) -> str:
    """Text that matplotlib does not read as mathematics, nor hides as a private label, without control codes."""
    return printable(text).replace("$", r"\$").removeprefix("_")


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
