"""Paint a drawn street at any size: ground and sky, shadows, things far to near, then the camera."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from segpatch.data.streets import people, structures, vehicles
from segpatch.data.streets.canvas import Canvas, Point, clip_near, locate
from segpatch.data.streets.ground import paint_ground_and_sky
from segpatch.data.streets.noise import TILE
from segpatch.data.streets.palette import pick_colour
from segpatch.data.streets.plan import draw_scene
from segpatch.data.streets.scene import Item, Scene
from segpatch.types import IGNORE

PAINTERS = {**structures.PAINTERS, **vehicles.PAINTERS, **people.PAINTERS}
SPLIT_CODES = {"train": 0, "val": 1, "test": 2}
NOSE = {
    "car": 2.2,
    "truck": 4.0,
    "bus": 5.5,
    "train": 13.0,
}  # from middle to end, metres: it hides what is beside it
SHADOWS = {  # footprint (along, across) and height of what throws a shadow, metres
    "car": (4.2, 1.8, 1.4),
    "truck": (8.0, 2.4, 3.2),
    "bus": (11.0, 2.5, 3.1),
    "train": (22.0, 2.5, 3.4),
    "person": (0.3, 0.5, 1.7),
    "bicycle": (1.7, 0.3, 0.9),
    "motorcycle": (1.9, 0.4, 1.1),
    "tree": (2.5, 2.5, 6.0),
    "cyclist": (1.4, 0.5, 1.7),
    "motorcyclist": (1.8, 0.5, 1.6),
    "lamp": (0.2, 0.2, 6.0),
    "light": (0.2, 0.2, 3.2),
    "sign": (0.1, 0.5, 2.4),
    "bush": (1.0, 1.0, 1.0),
}


def draw_street(
    seed: int, split: str, index: int, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image (H, W, 3) RGB and labels (H, W), Cityscapes train ids or 255, of one procedural street.

    (seed, split, index) decide the scene, which is the same whatever size is asked for: the vertical field of
    view is kept and a narrower picture is cut at its sides. Any split name may be used.
    """
    code = SPLIT_CODES.get(split, zlib.crc32(split.encode()))
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, code, index])))
    scene = draw_scene(generator)
    return render(scene, height, width, int(generator.integers(0, 2**31)))


def render(scene: Scene, height: int, width: int, noise_seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """The scene's image and labels at a size."""
    shadow = _shadows(scene, height, width)
    image, labels = paint_ground_and_sky(scene, height, width, shadow)
    canvas = Canvas(Image.fromarray(image), Image.fromarray(labels), scene.camera, scene.light)
    order = [(_distance(scene, item), i) for i, item in enumerate(scene.items)]
    for distance, i in sorted(order, reverse=True):
        if distance > 0.5:
            PAINTERS[scene.items[i].kind](canvas, scene.items[i])
    _paint_bonnet(scene, canvas)
    return _develop(scene, canvas.image, noise_seed), np.asarray(canvas.labels).copy()


def _paint_bonnet(scene: Scene, canvas: Canvas) -> None:
    """In one scene of six, the bonnet of the car that carries the camera: no class, hence IGNORE."""
    if scene.offsets[1] % 6:
        return
    high, wide = canvas.height * (0.9 + 0.05 * (scene.offsets[2] / 256)), canvas.height * 0.8
    outline = (canvas.centre - wide, high, canvas.centre + wide, high + canvas.height * 0.5)
    paint = pick_colour([(offset % 101) / 101 for offset in scene.offsets[2:6]])
    canvas.pen.ellipse(outline, fill=canvas.shade(paint, (0.0, 1.0, 0.0), 1.0))
    canvas.label_pen.ellipse(outline, fill=IGNORE)


def _distance(scene: Scene, item: Item) -> float:
    """Sorting depth. Rows along the street count from their far end: what stands before them is nearer."""
    if item.kind in ("block", "wood"):
        return 1000 + item.s
    if item.length:
        return locate(scene.camera, item.s + item.length, item.lateral).z + item.behind
    z = locate(scene.camera, item.s, item.lateral).z
    beside = abs(item.lateral - scene.camera.lateral) > 1.2
    return z - NOSE.get(item.kind, 0.0) * beside * abs(math.cos(item.heading))


def _shadows(scene: Scene, height: int, width: int) -> NDArray[np.uint8]:
    """Where the sun does not reach the ground, (H, W): 255 in shadow."""
    mask = Image.new("L", (width, height))
    canvas = Canvas(Image.new("RGB", (1, 1)), mask, scene.camera, scene.light)
    canvas.width, canvas.height = width, height
    canvas.focal, canvas.horizon = scene.camera.focal * height, scene.camera.horizon * height
    canvas.centre = width / 2
    pen = ImageDraw.Draw(mask)
    sun = scene.light.sun
    strong = scene.light.direct > 0.2
    per_metre = min(1 / math.tan(math.asin(sun[1])), 4.0) if strong else 0.15
    flat = math.hypot(sun[0], sun[2]) or 1.0
    dx, dz = -sun[0] / flat * per_metre, -sun[2] / flat * per_metre
    for item in scene.items:
        if item.kind in ("building", "wall", "hedge"):
            side = 9.0 if item.lateral > 0 else -9.0
            tall = (3.2 * (1 + int(7 * item.r[22] ** 1.5))) if item.kind == "building" else 1.0 + 2.2 * item.r[20]
            corners = [
                canvas.frame(item.s + a, item.lateral + b)
                for a, b in ((0, 0), (item.length, 0), (item.length, side * (item.kind == "building")))
            ]
            ground = [(f.x, 0.0, f.z) for f in corners]
        elif item.kind in SHADOWS:
            length, wide, tall = SHADOWS[item.kind]
            frame = canvas.frame(item.s, item.lateral, item.heading)
            if frame.z > 90:
                continue
            ground = [frame.at(a * length / 2, b * wide / 2, 0.0) for a, b in ((-1, -1), (-1, 1), (1, 1), (1, -1))]
        else:
            continue
        _throw(canvas, pen, ground, dx * min(tall, 14), dz * min(tall, 14))
    return np.asarray(mask)


def _throw(canvas: Canvas, pen: ImageDraw.ImageDraw, ground: list[Point], dx: float, dz: float) -> None:
    moved = [(x + dx, u, z + dz) for x, u, z in ground]
    shapes = [ground, moved]
    for i in range(len(ground)):
        j = (i + 1) % len(ground)
        shapes.append([ground[i], ground[j], moved[j], moved[i]])
    for shape in shapes:
        kept = clip_near(shape)
        if len(kept) > 2:
            pen.polygon([canvas.project(p) for p in kept], fill=255)


def _develop(scene: Scene, image: Image.Image, noise_seed: int) -> NDArray[np.uint8]:
    """The camera: a slight blur, exposure, white balance and gamma, sensor noise."""
    exposure, red, green, blue, gamma, noise, blur = scene.tone
    radius = blur * max(image.height / 512, 0.7)
    levels = [i / 255 for i in range(256)]
    table = [
        min(255, round(255 * min(1.0, exposure * gain * level) ** gamma))
        for gain in (red, green, blue)
        for level in levels
    ]
    pixels = np.asarray(image.filter(ImageFilter.BoxBlur(radius)).point(table))
    generator = np.random.Generator(np.random.PCG64(noise_seed))
    grain = (generator.integers(-128, 128, (TILE, TILE * 3), np.int16) * int(noise * 16)) >> 11
    height, width = pixels.shape[:2]
    out = pixels.reshape(height, width * 3).astype(np.int16)
    for top in range(0, height, TILE):
        shift = int(generator.integers(0, TILE * 3))
        rolled = np.roll(grain, shift, 1)
        for left in range(0, width * 3, TILE * 3):
            part = out[top : top + TILE, left : left + TILE * 3]
            part += rolled[: part.shape[0], : part.shape[1]]
    return np.clip(out, 0, 255).astype(np.uint8).reshape(height, width, 3)
