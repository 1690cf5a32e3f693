from __future__ import annotations

import math

from segpatch.evaluation import evaluate
from segpatch.notebook import html_table, three
from segpatch.patch import FULL_RANGE, random_patch
from segpatch.transfer import transfer_matrix
from tiny import conv_victim, in_batches, pictures

EVIL = '<script>alert("1")</script>'
SAFE = "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;"


def test_a_table_by_hand():
    assert html_table("cap", ["a", "b"], [["x", "1"]]) == (
        "<table><caption>cap</caption><thead><tr><th>a</th><th>b</th></tr></thead>"
        "<tbody><tr><th>x</th><td>1</td></tr></tbody></table>"
    )
    shown = html_table(EVIL, [EVIL], [[EVIL, EVIL]])
    assert shown.count(SAFE) == 4 and "<script" not in shown
    assert (three(math.nan), three(0.12345), three(-0.0001), three(-0.001)) == ("–", "0.123", "0.000", "-0.001")


def test_scores_and_a_matrix_show_their_numbers():
    patch = random_patch((4, 4), FULL_RANGE, 0)
    scores = evaluate(conv_victim(), in_batches(pictures(), 5), patch)
    shown = scores._repr_html_()
    assert f"<th>drop</th><td>{scores.miou_drop:.3f}</td>" in shown and "5 images" in shown
    matrix = transfer_matrix([conv_victim(name=EVIL)], in_batches(pictures(), 5), [patch])
    shown = matrix._repr_html_()
    (low, high) = matrix.cells[1].ci95
    assert SAFE in shown and "<script" not in shown and len(shown) < 1000
    assert f"<th>{patch.name}</th><td>{scores.miou_drop:.3f} [{low:.3f}, {high:.3f}]</td>" in shown
    assert f"<th>clean mIoU</th><td>{scores.miou_clean:.3f}</td>" in shown
