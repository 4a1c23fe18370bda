"""Patches of blobs, tubes and sheets with the class of every voxel: what a network learns shapes from.

They are made while a network trains, a pure function of (seed, step, sample): nothing is kept on disk. No anatomy is
modelled. What varies is what varies between data sets: voxels, sizes, edges, texture, contrast, noise, and what lies
next to a lesion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from focalis.dataset.phantoms.fields import smooth_field
from focalis.dataset.phantoms.geometry import Canvas, Sheet, Tube, blob_depth, draw_sheet, draw_tube
from focalis.dataset.phantoms.scanner import draw_scanner, scanned

BACKGROUND, BLOB, TUBE, SHEET = 0, 1, 2, 3
CLASSES = ("background", "blob", "tube", "sheet")

SMALLEST_MM = 0.8
LARGEST_SHARE = 0.2
"""Radius of the largest blob as a share of the patch's shortest side."""
THICK_SHARE = 0.35
THICKEST = 10.0
SHEETS = (0.25, 0.4, 0.25, 0.1)
TUBES = (0.2, 0.25, 0.2, 0.2, 0.15)
BLOBS = (0.1, 0.3, 0.25, 0.15)
"""Chances of 0, 1, 2 and so on of them; what is missing to 1 are clusters of blobs."""
CLUSTER = (4, 9)
ON_TUBE, ON_SHEET = 0.2, 0.2
CLIPPED_SHARE = 0.25
_STREAM = 4


@dataclass(frozen=True)
class ShapePatch:
    """A patch of shapes.

    Attributes:
        image: float32 (z, y, x), mean 0 and standard deviation 1.
        clean: the image without noise, on the same scale, float32.
        label: uint8 (z, y, x): `BACKGROUND`, `BLOB`, `TUBE` or `SHEET`.
        spacing_zyx_mm: the spacing of its voxels; 1 mm along the finest axes.
    """

    image: NDArray[np.float32]
    clean: NDArray[np.float32]
    label: NDArray[np.uint8]
    spacing_zyx_mm: tuple[float, float, float]


@dataclass
class _Scene:
    """What has been drawn so far: ideal intensities and, per class, the share of every voxel that it fills."""

    canvas: Canvas
    ideal: NDArray[np.float32]
    label: NDArray[np.uint8]

    def mark(
        self, seen: NDArray[np.float32], value: int, box: tuple[slice, ...] = (slice(None),) * 3
    ) -> None:
        """Label what is filled by half or more; of a shape that fills no voxel by half, the fullest voxel."""
        filled = seen >= min(0.5, max(float(seen.max()), 0.05))
        self.label[box][filled] = value


def make_shapes(shape_zyx: tuple[int, int, int], seed: int, step: int = 0, sample: int = 0) -> ShapePatch:
    """One patch of shapes; the same arguments give the same patch.

    Args:
        shape_zyx: its shape, 8 or more along each axis.
        seed: the run's seed.
        step: which step of the training it is for.
        sample: which sample of the step's batch.
    """
    rng = np.random.default_rng((seed, _STREAM, step, sample))
    canvas = _draw_canvas(shape_zyx, rng)
    thickness = np.asarray(canvas.spacing_zyx_mm)
    scanner = draw_scanner(thickness, rng)
    scene = _Scene(canvas, _tissue(canvas, rng), np.zeros(shape_zyx, dtype=np.uint8))
    clutter = math.hypot(scanner.noise, float(scene.ideal.std()))
    sheets = _add_sheets(scene, rng)
    strength = _contrast(rng)
    tubes = _add_tubes(scene, strength, clutter, rng)
    _add_blobs(scene, strength, clutter, sheets, tubes, rng)
    image, clean = scanned(scene.ideal, scanner, canvas.spacing_zyx_mm, rng)
    if rng.random() < CLIPPED_SHARE:
        limits = np.percentile(image, [rng.uniform(0, 8), rng.uniform(92, 100)])
        low, high = limits.astype(np.float32)
        image, clean = np.clip(image, low, high), np.clip(clean, low, high)
    mean, deviation = np.float32(image.mean()), np.float32(max(float(image.std()), 1e-6))
    return ShapePatch(
        (image - mean) / deviation, (clean - mean) / deviation, scene.label, canvas.spacing_zyx_mm
    )


def blob_distance(
    label: NDArray[np.uint8], spacing_zyx_mm: tuple[float, float, float], cap_mm: float
) -> NDArray[np.float32]:
    """Distance in mm to the border of the blobs, positive inside, negative outside, cut at plus and minus `cap_mm`.

    It is measured between voxel centres, less half a finest voxel, so that it changes sign at the border.
    """
    blobs = label == BLOB
    if not blobs.any():
        return np.full(label.shape, -cap_mm, dtype=np.float32)
    half = min(spacing_zyx_mm) / 2
    inside, outside = (
        scipy.ndimage.distance_transform_edt(part, sampling=spacing_zyx_mm).astype(np.float32)
        for part in (blobs, ~blobs)
    )
    signed = np.where(blobs, inside - half, half - outside)
    return np.asarray(np.clip(signed, -cap_mm, cap_mm), dtype=np.float32)


def block_mask(
    shape_zyx: tuple[int, int, int], share: float, seed: int, step: int = 0, sample: int = 0
) -> NDArray[np.bool_]:
    """Blocks of 4 to 8 voxels a side that cover about this share of a patch; a pure function like `make_shapes`."""
    rng = np.random.default_rng((seed, _STREAM + 1, step, sample))
    side = int(rng.integers(4, 9))
    counts = [-(-size // side) + 1 for size in shape_zyx]
    hidden = rng.random(counts) < share
    for axis in range(3):
        hidden = hidden.repeat(side, axis=axis)
    z, y, x = (int(start) for start in rng.integers(0, side, 3))
    depth, height, width = shape_zyx
    return hidden[z : z + depth, y : y + height, x : x + width]


def _draw_canvas(shape_zyx: tuple[int, int, int], rng: np.random.Generator) -> Canvas:
    """Cubes, or slices that are up to `THICKEST` times as thick, mostly along z."""
    if rng.random() >= THICK_SHARE:
        return Canvas(shape_zyx, (1.0, 1.0, 1.0))
    thick = math.exp(rng.uniform(math.log(1.5), math.log(THICKEST)))
    axis = int(rng.choice(3, p=(0.7, 0.15, 0.15)))
    spacing = [1.0, 1.0, 1.0]
    spacing[axis] = thick
    return Canvas(shape_zyx, (spacing[0], spacing[1], spacing[2]), axis, 2 if thick < 4 else 3)


def _contrast(rng: np.random.Generator) -> float:
    """How far a shape's brightness lies from its surroundings', of either sign."""
    return float(rng.choice((-1, 1), p=(0.35, 0.65)) * math.exp(rng.uniform(math.log(0.35), math.log(2.5))))


def _tissue(canvas: Canvas, rng: np.random.Generator) -> NDArray[np.float32]:
    """Texture, coarse and fine."""
    image = np.zeros(canvas.shape_zyx, dtype=np.float32)
    for finest, coarsest in ((1.2, 3.0), (4.0, 12.0)):
        strength = float(rng.uniform(0, 0.35)) * (rng.random() < 0.7)
        if strength:
            correlation = float(rng.uniform(finest, coarsest))
            image += np.float32(strength) * smooth_field(
                canvas.shape_zyx, canvas.spacing_zyx_mm, correlation, rng
            )
    return image


def _add_sheets(scene: _Scene, rng: np.random.Generator) -> list[Sheet]:
    """Sheets, with tissue of another brightness behind each, or none, but a wall; with a wall, or a bare edge."""
    canvas, sheets = scene.canvas, []
    for _ in range(int(rng.choice(len(SHEETS), p=SHEETS))):
        sheet = draw_sheet(canvas, rng)
        depth = sheet.depth_mm(canvas, rng)
        kind = rng.choice(("edge", "wall", "both"), p=(0.5, 0.25, 0.25))
        if kind != "wall":
            scene.ideal += np.float32(_contrast(rng) * rng.uniform(0.7, 2.5)) * canvas.seen(depth)
        half_mm = 0.75 if kind == "edge" else float(rng.uniform(0.5, 1.6))
        wall = canvas.seen(np.float32(half_mm) - np.abs(depth))
        if kind != "edge":
            scene.ideal += np.float32(_contrast(rng)) * wall
        scene.label[wall >= 0.5] = SHEET
        sheets.append(sheet)
    return sheets


def _add_tubes(scene: _Scene, strength: float, clutter: float, rng: np.random.Generator) -> list[Tube]:
    """Tubes and their branches. They are as bright as the blobs by half the time: then brightness tells nothing."""
    tubes: list[Tube] = []
    alike = rng.random() < 0.5
    for _ in range(int(rng.choice(len(TUBES), p=TUBES))):
        parent = tubes[int(rng.integers(len(tubes)))] if tubes and rng.random() < 0.4 else None
        tube = draw_tube(scene.canvas, rng, parent)
        depth = tube.depth_mm(scene.canvas)
        seen = scene.canvas.seen(depth)
        contrast = strength * float(rng.uniform(0.8, 1.2)) if alike else _contrast(rng)
        contrast = _visible(contrast, clutter, float(tube.radius_mm.mean()))
        scene.ideal += np.float32(contrast) * seen
        scene.label[seen >= 0.4] = TUBE
        tubes.append(tube)
    return tubes


def _add_blobs(
    scene: _Scene,
    strength: float,
    clutter: float,
    sheets: list[Sheet],
    tubes: list[Tube],
    rng: np.random.Generator,
) -> None:
    canvas = scene.canvas
    largest = LARGEST_SHARE * float(canvas.extent_mm.min())
    smallest = min(largest, max(SMALLEST_MM, 0.35 * max(canvas.spacing_zyx_mm)))
    count = int(rng.choice(len(BLOBS) + 1, p=(*BLOBS, 1 - sum(BLOBS))))
    cluster = count == len(BLOBS)
    middle = rng.uniform(0.2, 0.8, 3) * canvas.extent_mm
    for _ in range(int(rng.integers(*CLUSTER)) if cluster else count):
        upper = min(largest, 2.5 * smallest) if cluster else largest
        radius = smallest * (upper / smallest) ** (rng.random() ** 0.8)
        centre = rng.uniform(0.05, 0.95, 3) * canvas.extent_mm
        where = rng.random()
        if cluster:
            centre = middle + rng.standard_normal(3) * 0.12 * canvas.extent_mm
        elif where < ON_TUBE and tubes:
            path = tubes[int(rng.integers(len(tubes)))].path_zyx_mm
            centre = path[int(rng.integers(len(path)))] + rng.standard_normal(3) * 0.5 * radius
        elif ON_TUBE < where < ON_TUBE + ON_SHEET and sheets:
            on = sheets[int(rng.integers(len(sheets)))].nearest(centre)
            centre = on + rng.standard_normal(3) * 0.5 * radius
        centre = np.clip(centre, 0, canvas.extent_mm - 1e-3)
        _add_blob(scene, centre, radius, _visible(strength, clutter, radius), rng)


def _visible(contrast: float, clutter: float, radius_mm: float) -> float:
    """The contrast, raised where noise and texture would hide a shape: nobody can learn from what is not there."""
    least = 2.5 * clutter / max(radius_mm, 1.0)
    return math.copysign(max(abs(contrast), least), contrast)


def _add_blob(
    scene: _Scene, centre: NDArray[np.float64], radius: float, contrast: float, rng: np.random.Generator
) -> None:
    """Put a blob over what is there: even, textured or hollow, its edge sharp or soft."""
    canvas = scene.canvas
    depth, box = blob_depth(canvas, centre, radius, rng)
    seen = canvas.seen(depth)
    if not seen.any():
        return
    softness = float(rng.uniform(1, 3)) if rng.random() < 0.3 and radius > 2 else 1.0
    weight = canvas.seen(depth / np.float32(softness))
    at = tuple(
        min(int(place / step), size - 1)
        for place, step, size in zip(centre, canvas.spacing_zyx_mm, canvas.shape_zyx, strict=True)
    )
    around = tuple(slice(max(0, i - 2), i + 3) for i in at)
    value = np.full(seen.shape, np.float32(np.median(scene.ideal[around]) + contrast), dtype=np.float32)
    texture = float(rng.uniform(0, 0.4)) * (rng.random() < 0.5)
    if texture:
        value += np.float32(texture * contrast) * smooth_field(
            (seen.shape[0], seen.shape[1], seen.shape[2]), canvas.spacing_zyx_mm, max(1.0, 0.4 * radius), rng
        )
    if radius > 3 and rng.random() < 0.15:
        rim_mm = float(rng.uniform(0.25, 0.5)) * radius
        value -= np.float32(contrast * rng.uniform(0.5, 1.3)) * canvas.seen(depth - np.float32(rim_mm))
    scene.ideal[box] += weight * (value - scene.ideal[box])
    scene.mark(seen, BLOB, box)
