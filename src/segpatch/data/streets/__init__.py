"""Procedural driving scenes with Cityscapes labels: enough of a street to train and attack networks offline.

Colour says little about the class (palettes are shared and light varies); shape, texture and place do.
"""

from __future__ import annotations

from segpatch.data.streets.render import draw_street

__all__ = ["draw_street"]
