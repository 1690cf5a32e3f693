"""What a notebook shows of a result: small HTML tables, every text escaped."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence


def html_table(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table with a caption above; the first cell of each row is its heading."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    body = "".join(
        f"<tr><th>{html.escape(first)}</th>{''.join(f'<td>{html.escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    title = f"<caption>{html.escape(caption)}</caption>"
    return f"<table>{title}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def three(value: float) -> str:
    """Three decimals, no minus before a zero; an en dash for what has no value."""
    return "–" if math.isnan(value) else f"{value:.3f}".replace("-0.000", "0.000")
