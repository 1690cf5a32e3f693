"""A pinhole camera, light, and the few shapes every street object is painted with (far to near)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Colour = tuple[float, float, float]
Point = tuple[float, float, float]

NEAR = 0.5  # metres: nothing nearer than this is painted
FINEST = 6.0  # pixels a metre below which details without a label of their own are left out


@dataclass(frozen=True, kw_only=True)
class Light:
    """Sun and air. `sun` points at the sun (right, up, forward); strengths multiply colours."""

    sun: Point
    ambient: float
    direct: float
    haze: Colour
    visibility: float  # metres until the haze takes 63 %


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A camera on a road. Lengths in metres; focal length and horizon as shares of the image height.

    Pitch is the shift of the horizon, as with a shift lens: upright lines stay upright.
    """

    focal: float
    horizon: float
    height: float
    yaw: float
    lateral: float
    bend: float  # the road's centre line lies at x = bend * s^2 / 2


@dataclass(frozen=True)
class Frame:
    """A place on the ground in camera coordinates (x right, z forward) and the way something there faces."""

    x: float
    z: float
    fx: float
    fz: float

    def at(self, along: float, across: float, up: float) -> Point:
        """A point in camera coordinates: `along` the heading, `across` to its right, `up` from the ground."""
        return (self.x + along * self.fx + across * self.fz, up, self.z + along * self.fz - across * self.fx)


class Canvas:
    """An image and its labels while being painted."""

    def __init__(self, image: Image.Image, labels: Image.Image, camera: Camera, light: Light) -> None:
        self.image, self.labels = image, labels
        self.pen, self.label_pen = ImageDraw.Draw(image), ImageDraw.Draw(labels)
        self.camera, self.light = camera, light
        self.width, self.height = image.size
        self.focal = camera.focal * self.height
        self.horizon = camera.horizon * self.height
        self.centre = self.width / 2

    def frame(self, s: float, lateral: float, heading: float = 0.0) -> Frame:
        """The frame at `s` metres along the road, `lateral` right of its centre, turned clockwise."""
        return locate(self.camera, s, lateral, heading)

    def project(self, p: Point) -> tuple[float, float]:
        """Pixel (column, row) of a point in camera coordinates with z > 0."""
        k = self.focal / p[2]
        return self.centre + p[0] * k, self.horizon + (self.camera.height - p[1]) * k

    def sees(self, a: Frame, b: Frame) -> bool:
        """Whether an upright surface from a to b may show in the picture."""
        half = self.centre / self.focal
        right, left = (p.x > half * p.z for p in (a, b)), (p.x < -half * p.z for p in (a, b))
        return not (all(right) or all(left) or max(a.z, b.z) < NEAR)

    def shade(self, colour: Colour, normal: Point, depth: float) -> tuple[int, int, int]:
        """`colour` under the light on a surface with this normal, seen through haze."""
        sun = self.light.sun
        cosine = normal[0] * sun[0] + normal[1] * sun[1] + normal[2] * sun[2]
        k = self.light.ambient * (0.9 + 0.1 * normal[1]) + self.light.direct * max(0.0, cosine)
        clear = math.exp(-max(depth, 0.0) / self.light.visibility)
        r, g, b = (
            min(255.0, c * k) * clear + h * (1 - clear) for c, h in zip(colour, self.light.haze, strict=True)
        )
        return int(r), int(g), int(b)

    def polygon(
        self, points: Sequence[Point], colour: Colour, label: int | None, normal: Point = (0.0, 0.3, -0.8)
    ) -> None:
        """Fill a flat polygon. label None keeps the labels, for details on something already painted."""
        kept = clip_near(points)
        if len(kept) < 3:
            return
        outline = [self.project(p) for p in kept]
        ink = self.shade(colour, normal, kept[0][2])
        self.pen.polygon(outline, fill=ink)
        if label is not None:
            self.label_pen.polygon(outline, fill=label)

    def face(
        self, frame: Frame, corners: Sequence[Point], colour: Colour, label: int | None, normal: Point
    ) -> bool:
        """Fill a face given as (along, across, up) if it is turned to the camera; whether it was."""
        if label is None and self.focal < FINEST * frame.z:
            return False
        points = [frame.at(*c) for c in corners]
        n = (
            normal[0] * frame.fx + normal[1] * frame.fz,
            normal[2],
            normal[0] * frame.fz - normal[1] * frame.fx,
        )
        p = points[0]
        if n[0] * p[0] + n[1] * (p[1] - self.camera.height) + n[2] * p[2] >= 0:
            return False
        self.polygon(points, colour, label, n)
        return True

    def limb(
        self, frame: Frame, a: Point, b: Point, radii: tuple[float, float], colour: Colour, label: int | None
    ) -> None:
        """A rounded stick from a to b, each (along, across, up) in the frame, with a radius at each end."""
        if label is None and self.focal < FINEST * frame.z:
            return
        p, q = frame.at(*a), frame.at(*b)
        if p[2] < NEAR or q[2] < NEAR:
            return
        (x0, y0), (x1, y1) = self.project(p), self.project(q)
        r0, r1 = radii[0] * self.focal / p[2], radii[1] * self.focal / q[2]
        dx, dy = x1 - x0, y1 - y0
        length = math.hypot(dx, dy)
        ink = self.shade(colour, (0.2, 0.3, -0.8), p[2])
        pens: list[tuple[ImageDraw.ImageDraw, tuple[int, ...]]] = [(self.pen, ink)]
        if label is not None:
            pens.append((self.label_pen, (label,)))
        shapes: list[list[tuple[float, float]]] = []
        if length > 0.3:
            nx, ny = -dy / length, dx / length
            w0, w1 = max(r0, 0.45), max(r1, 0.45)
            shapes.append(
                [
                    (x0 + nx * w0, y0 + ny * w0),
                    (x1 + nx * w1, y1 + ny * w1),
                    (x1 - nx * w1, y1 - ny * w1),
                    (x0 - nx * w0, y0 - ny * w0),
                ]
            )
        for pen, fill in pens:
            for shape in shapes:
                pen.polygon(shape, fill=fill)
            for x, y, r in ((x0, y0, r0), (x1, y1, r1)):
                if r > 0.8:
                    pen.ellipse((x - r, y - r, x + r, y + r), fill=fill)

    def disc(
        self,
        frame: Frame,
        centre: Point,
        radius: float,
        colour: Colour,
        label: int | None,
        *,
        upright: str = "side",
    ) -> None:
        """A round plate in the plane of the heading ("side", a wheel) or across it ("front", a lamp)."""
        if label is None and self.focal < FINEST * frame.z:
            return
        along, across, up = centre
        steps = 16
        circle = [
            (math.cos(2 * math.pi * i / steps) * radius, math.sin(2 * math.pi * i / steps) * radius)
            for i in range(steps)
        ]
        if upright == "side":
            points = [frame.at(along + c, across, up + s) for c, s in circle]
        else:
            points = [frame.at(along, across + c, up + s) for c, s in circle]
        self.polygon(points, colour, label)

    def strip(
        self,
        start: Frame,
        end: Frame,
        span: tuple[float, float],
        texture: NDArray[np.uint8],
        scale: float,
        label: int,
    ) -> None:
        """An upright textured surface between two places on the ground, from span[0] to span[1] metres up.

        texture (h, w, 4) RGBA repeats, row 0 at the bottom, `scale` texels a metre; pixels with alpha 0 are
        see-through yet labelled (annotators do not cut out the gaps of a fence), alpha 1 is not labelled.
        """
        x0, z0, x1, z1 = start.x, start.z, end.x, end.z
        length = math.hypot(x1 - x0, z1 - z0)
        lo, hi = 0.0, 1.0
        if z0 < NEAR and z1 < NEAR:
            return
        if z0 < NEAR:
            lo = (NEAR - z0) / (z1 - z0)
        elif z1 < NEAR:
            hi = (NEAR - z0) / (z1 - z0)
        ends = [(x0 + t * (x1 - x0), z0 + t * (z1 - z0)) for t in (lo, hi)]
        columns = sorted(self.centre + self.focal * x / z for x, z in ends)
        left, right = max(0, math.ceil(columns[0] - 0.5)), min(self.width, math.ceil(columns[1] - 0.5))
        if right <= left:
            return
        slope = (np.arange(left, right) + (0.5 - self.centre)) / self.focal
        t = (slope * z0 - x0) / ((x1 - x0) - slope * (z1 - z0))
        depth = np.maximum(z0 + t * (z1 - z0), NEAR)
        eye = self.camera.height
        rows = [self.horizon + self.focal * (eye - h) / d for h in span for d in (depth[0], depth[-1])]
        top, bottom = max(0, math.floor(min(rows))), min(self.height, math.ceil(max(rows)))
        if bottom <= top:
            return
        per_row = (depth / self.focal * scale).astype(np.float32)
        drop = np.arange(top, bottom, dtype=np.float32) + np.float32(0.5 - self.horizon)
        texel = np.float32((eye - span[0]) * scale) - drop[:, None] * per_row
        h, w = texture.shape[:2]
        inside = (texel >= 0) & (texel < np.float32((span[1] - span[0]) * scale))
        v = texel.astype(np.int32) % h
        u = (np.clip(t, 0, 1) * (length * scale)).astype(np.int32) % w
        patch = texture.view(np.uint32).reshape(-1).take(v * w + u).view(np.uint8).reshape(*v.shape, 4)
        box = (left, top)
        alpha = patch[..., 3]
        shown = np.where(inside & (alpha > 1), np.uint8(255), np.uint8(0))
        named = np.where(inside & (alpha != 1), np.uint8(255), np.uint8(0))
        self.image.paste(Image.fromarray(np.ascontiguousarray(patch[..., :3])), box, Image.fromarray(shown))
        self.labels.paste(label, (left, top, right, bottom), Image.fromarray(named))

    def sprite(
        self,
        x: float,
        up: float,
        z: float,
        size: tuple[float, float],
        colour: Colour,
        look: tuple[NDArray[np.float32], NDArray[np.uint8]],
        label: int,
    ) -> None:
        """A cut-out facing the camera, `size` (width, height) metres, its middle at (x, up, z)."""
        if z < 1.5:
            return
        k = self.focal / z
        column, row = self.project((x, up, z))
        w, h = max(2, round(size[0] * k)), max(2, round(size[1] * k))
        left, top = round(column - w / 2), round(row - h / 2)
        x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + w, self.width), min(top + h, self.height)
        if x1 <= x0 or y1 <= y0:
            return
        shade, mask = look
        n = mask.shape[0]
        us, vs = (np.arange(x0, x1) - left) * n // w, (np.arange(y0, y1) - top) * n // h
        cut = np.ix_(vs, us)
        clear = math.exp(-z / self.light.visibility)
        k = (self.light.ambient + 0.6 * self.light.direct) * clear
        glow = shade[cut]
        pixels = np.empty((*glow.shape, 3), np.uint8)
        for c in range(3):
            level = glow * np.float32(colour[c] * k) + np.float32(self.light.haze[c] * (1 - clear))
            pixels[..., c] = np.minimum(level, 255)
        opaque = Image.fromarray(mask[cut])
        self.image.paste(Image.fromarray(pixels), (x0, y0), opaque)
        self.labels.paste(label, (x0, y0, x1, y1), opaque)


def locate(camera: Camera, s: float, lateral: float, heading: float = 0.0) -> Frame:
    """The frame of a place on the road, in camera coordinates."""
    x = lateral + camera.bend * s * s / 2 - camera.lateral
    cos, sin = math.cos(camera.yaw), math.sin(camera.yaw)
    angle = math.atan(camera.bend * s) + heading - camera.yaw
    return Frame(x * cos - s * sin, x * sin + s * cos, math.sin(angle), math.cos(angle))


def clip_near(points: Sequence[Point]) -> list[Point]:
    """The part of a polygon at least NEAR metres in front of the camera."""
    if all(p[2] >= NEAR for p in points):
        return list(points)
    kept: list[Point] = []
    for p, q in zip(points, [*points[1:], points[0]], strict=True):
        if p[2] >= NEAR:
            kept.append(p)
        if (p[2] >= NEAR) != (q[2] >= NEAR):
            t = (NEAR - p[2]) / (q[2] - p[2])
            kept.append((p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]), NEAR))
    return kept
