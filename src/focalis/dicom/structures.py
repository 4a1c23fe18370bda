"""RT Structure Sets (RTSTRUCT; PS3.3 A.19 and C.8.8.5 to C.8.8.8): contours to masks and back."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, FileDataset
from pydicom.uid import RTStructureSetStorage

from focalis.charsets import DEFAULT_CHARSET
from focalis.dicom.contours import Contour, combine_contours, fill_contours
from focalis.dicom.derived import Origin, Superseded, describe_result
from focalis.dicom.headers import gist, numbers, quiet, text
from focalis.dicom.objects import keyed_names, read_object, require_same_patient_space, select
from focalis.dicom.series import Series
from focalis.dicom.storing import remove, save
from focalis.dicom.structures_encoding import encode_structures
from focalis.errors import DataError

STRUCTURE_CLASSES = frozenset({RTStructureSetStorage})

FLATNESS = 0.1
"""The points of a contour, and the contours of one slice, lie in one plane within this share of a slice."""

OFF_PLANE = 0.2
"""A contour may lie off the slice that it belongs to by this share of a slice before that is reported."""

STRAY_MM = 1000.0
"""No structure reaches so far beyond an image of it."""

_XOR = "CLOSEDPLANARXOR"
_CLOSED = ("CLOSEDPLANAR", _XOR)


@dataclass(frozen=True)
class Structure:
    """One structure (ROI) of an RT Structure Set, as it describes itself.

    Attributes:
        name: its ROI Name; "NAME #NUMBER" where several bear one name, "structure #NUMBER" without one.
        interpreted_type: its RT ROI Interpreted Type, e.g. "GTV" or "ORGAN"; empty if there is none.
        contours: the number of its closed contours, the ones that enclose voxels.
        passed_over: the number of its other contours: points, open lines, and polygons of fewer than 3 points.
        points: how many of those passed over are points, which mark a place and are not outlines.
    """

    number: int
    name: str
    interpreted_type: str
    contours: int
    passed_over: int
    points: int = 0

    @property
    def has_outlines(self) -> bool:
        """Whether it has contours other than points."""
        return self.contours + self.passed_over > self.points


def list_structures(path: Path, charset: str = DEFAULT_CHARSET) -> tuple[Structure, ...]:
    """The structures of an RT Structure Set, in its order, those without contours too.

    Args:
        path: an RT Structure Set.
        charset: the Python codec for text of no or a wrong character set that is not UTF-8.

    Raises:
        DataError: the file is missing, damaged, or no RT Structure Set, or two structures share a number.
    """
    dataset = read_object(path, STRUCTURE_CLASSES, "an RT Structure Set", charset)
    return tuple(structure for structure, _ in _structures(dataset, path))


def read_structures(
    path: Path,
    reference: Series,
    wanted: Collection[str] | None = None,
    doubts: list[str] | None = None,
    charset: str = DEFAULT_CHARSET,
) -> dict[str, NDArray[np.bool_]]:
    """The structures of an RT Structure Set as masks on the grid of the series they were drawn on.

    A voxel belongs to a structure if its centre lies inside its contours: a contour inside another is a hole (and
    one inside that an island), as is the inside of a keyhole; contours that overlap are united, and one that
    repeats another, or lies just inside a nearly identical one, counts once. CLOSEDPLANAR_XOR contours are combined
    by exclusive or (PS3.3 C.8.8.6). A contour belongs to the slice nearest to its plane, by position alone:
    references to images are often stale or missing. Points and open contours enclose nothing and are passed over.
    Slices between contoured ones are not filled in. What reaches beyond the image's edge is cut off.

    Args:
        path: an RT Structure Set.
        reference: the series it was drawn on, or another one with the same slices in the same patient space.
        wanted: the names of the structures to read, as `list_structures` gives them; all by default. Contours
            of other structures are not looked at.
        doubts: takes up what was passed over, united or counted once, and gaps, a line each.
        charset: the Python codec for text of no or a wrong character set that is not UTF-8.

    Returns:
        Structure name to mask (z, y, x), in the object's order; empty for a structure without contours, or of points.

    Raises:
        DataError: the file is missing, damaged, or no RT Structure Set; it was drawn on another series; a wanted
            structure is not there, or has outlines that enclose no voxel; or a contour of a wanted one is damaged,
            not parallel to the slices, more than half a slice beyond the first or last one, wholly beside the image,
            or shares its slice with contours on another plane (it was drawn on finer slices than these).
    """
    dataset = read_object(path, STRUCTURE_CLASSES, "an RT Structure Set", charset)
    require_same_patient_space(dataset, path, reference)
    found = _structures(dataset, path)
    frames = _frames_of_reference(dataset)
    own_frame = text(reference.header, "FrameOfReferenceUID")
    chosen = select([structure.name for structure, _ in found], wanted, path, "structure")
    masks = {}
    for structure, contours in found:
        if structure.name in chosen:
            where = f"{path}: structure {structure.name!r}"
            if own_frame in frames.values() and frames.get(structure.number, own_frame) != own_frame:
                raise DataError.at(
                    where,
                    "was drawn in another frame of reference than the series",
                    "choose others, or give the series that it was drawn on",
                )
            mask, said = _mask(contours, reference, where)
            lines = structure.passed_over - structure.points
            if lines:
                said.insert(
                    0,
                    f"{lines} of its {lines + structure.contours} contours are not closed and were passed over",
                )
            if structure.has_outlines and not mask.any():
                why = f" ({'; '.join(said)})" if said else ""
                raise DataError.at(
                    where, f"has contours that enclose no voxel{why}", "correct it, or choose others"
                )
            masks[structure.name] = mask
            if doubts is not None:
                doubts += [f"{where}: {each}" for each in said]
    return masks


def write_structures(
    label: NDArray[np.integer],
    names: Mapping[int, str],
    series: Series,
    path: Path,
    origin: Origin,
    *,
    supersedes: Superseded | None = None,
) -> bool:
    """Write a label map as an RT Structure Set whose contours follow the voxels' edges.

    Each named label becomes a structure with the label's value as its number; one without voxels is listed
    without contours. Holes are drawn by keyholes, see `focalis.dicom.contours`. Contours lie in the planes of
    their source slices, to 1e-6 mm. UIDs are derived from the content, see `focalis.dicom.derived`: the same
    call writes the same bytes.

    A structure set without any contour is of no use to its readers, and many refuse it: where nothing was
    found, none is written, and an older file under that name, which would pass for this result, is removed. One that
    replaces an earlier structure set is written all the same: the earlier one's contours are withdrawn by it.

    Args:
        label: integer values on the series' grid, z, y, x; 0 is the background.
        names: label value to name, up to 64 characters; 0 may be named and is passed over.
        series: the series that was labelled.
        origin: how the labels were made.
        supersedes: the earlier structure set that this one replaces.

    Returns:
        Whether a file was written: False if the label map has no foreground and nothing is replaced.

    Raises:
        DataError: the label map does not fit the series, a value has no name, a name cannot be stored, or the
            file cannot be written.
    """
    result = describe_result("RTSTRUCT", label, names, series, origin, supersedes)
    if supersedes is None and not label.any():
        remove(path, series)
        return False
    save(lambda: encode_structures(result), path, series)
    return True


def _frames_of_reference(dataset: FileDataset) -> dict[int, str]:
    """ROI Number to the frame of reference that the structure was drawn in, of those that name one."""
    found = {}
    for item in dataset.get("StructureSetROISequence") or ():
        if frame := text(item, "ReferencedFrameOfReferenceUID"):
            found[int(item.ROINumber)] = frame
    return found


def _structures(dataset: FileDataset, path: Path) -> list[tuple[Structure, list[Dataset]]]:
    """The structures with their closed contours."""
    contours: dict[int, list[Dataset]] = {}
    for item in dataset.get("ROIContourSequence") or ():
        number = _number(item, "ReferencedROINumber", path)
        if number in contours:
            raise DataError.at(path, f"has two sets of contours for structure {number}", "export it again")
        contours[number] = list(item.get("ContourSequence") or ())
    types = {
        _number(item, "ReferencedROINumber", path): text(item, "RTROIInterpretedType")
        for item in dataset.get("RTROIObservationsSequence") or ()
    }
    items = [
        (_number(item, "ROINumber", path), text(item, "ROIName"))
        for item in dataset.get("StructureSetROISequence") or ()
    ]
    if len({number for number, _ in items}) != len(items):
        raise DataError.at(path, "two structures share a number", "export it again")
    if strangers := sorted(number for number in contours.keys() - dict(items).keys() if contours[number]):
        raise DataError.at(
            path, f"has contours of structure {strangers[0]}, which it does not describe", "export it again"
        )
    found = []
    for name, (number, _) in zip(keyed_names(items, path, "structure"), items, strict=True):
        drawn = contours.get(number, [])
        closed = [item for item in drawn if _kind(item) in _CLOSED]
        closed = [item for item in closed if len(item.get("ContourData") or ()) >= 9]
        structure = Structure(
            number=number,
            name=name,
            interpreted_type=types.get(number, ""),
            contours=len(closed),
            passed_over=len(drawn) - len(closed),
            points=sum(_kind(item) == "POINT" for item in drawn),
        )
        found.append((structure, closed))
    return found


def _kind(contour: Dataset) -> str:
    """The geometric type of a contour, however it is spelt: the standard itself has both CLOSED_ and CLOSEDPLANAR_."""
    return text(contour, "ContourGeometricType").upper().replace("_", "").replace(" ", "")


def _number(item: Dataset, keyword: str, path: Path) -> int:
    return round(numbers(item, keyword, 1, str(path))[0])


def _mask(items: list[Dataset], reference: Series, where: str) -> tuple[NDArray[np.bool_], list[str]]:
    """The voxels whose centres lie inside a structure's closed contours, and what is doubtful about them."""
    mask = np.zeros(reference.volume.array.shape, dtype=bool)
    by_slice: dict[int, list[tuple[Contour, bool]]] = {}
    planes: dict[int, list[float]] = {}
    for count, item in enumerate(items, start=1):
        z, plane, contour = _contour(item, reference, f"{where}, contour {count}")
        by_slice.setdefault(z, []).append((contour, _kind(item) == _XOR))
        planes.setdefault(z, []).append(plane)
    off = [abs(plane - z) for z, found in planes.items() for plane in found]
    aside = sum(each > OFF_PLANE for each in off)
    size_xy = np.array(reference.volume.grid.size_xyz[:2])
    cut = sum(
        bool(((contour < -1) | (contour > size_xy)).any())
        for contours in by_slice.values()
        for contour, _ in contours
    )
    repeated = overlapping = empty = retraced = thin = 0
    for z, contours in by_slice.items():
        spread = max(planes[z]) - min(planes[z])
        if spread > FLATNESS:
            apart = spread * reference.volume.grid.spacing_xyz_mm[2]
            raise DataError.at(
                where,
                f"has contours {apart:.2f} mm apart that belong to one slice of the series (number {z})",
                "they were drawn on thinner slices: give the series that they were drawn on",
            )
        shape_yx = reference.volume.grid.shape_zyx[1:]
        filled = combine_contours([contour for contour, xor in contours if not xor], shape_yx)
        mask[z] = filled.mask ^ fill_contours([contour for contour, xor in contours if xor], shape_yx)
        repeated += filled.repeated
        overlapping += filled.overlapping
        empty += filled.empty
        retraced += filled.retraced
        thin += filled.thin
    said = []
    if short := sum(_points_differ(item) for item in items):
        said.append(f"{short} of its {len(items)} contours hold another number of points than they state")
    if aside:
        said.append(
            f"{aside} of its {len(items)} contours lie up to {max(off):.2f} slices off the slice that they count for"
        )
    if cut:
        said.append(f"{cut} of its {len(items)} contours reach beyond the image and were cut off there")
    if repeated:
        said.append(f"{repeated} of its {len(items)} contours repeat another one and count once")
    if retraced:
        said.append(
            f"{retraced} of its {len(items)} contours lie just inside a nearly identical one and count once"
        )
    if thin:
        said.append(
            f"{thin} of its {len(items)} contours are nearly as large as the one around them and were read as holes; "
            "check them"
        )
    if overlapping:
        said.append(f"{overlapping} of its {len(items)} contours overlap and were united")
    if empty:
        said.append(f"{empty} of its {len(items)} contours enclose no voxel's centre")
    return mask, said + _gaps(mask)


def _points_differ(item: Dataset) -> bool:
    """Whether a contour states another number of points than it holds."""
    stated = text(item, "NumberOfContourPoints")
    return stated.isdecimal() and int(stated) * 3 != len(item.ContourData)


def _gaps(mask: NDArray[np.bool_]) -> list[str]:
    """A line about uncontoured slices between contours that overlap."""
    drawn = np.flatnonzero(mask.any(axis=(1, 2))).tolist()
    gaps = [
        (below, above)
        for below, above in pairwise(drawn)
        if above > below + 1 and (mask[below] & mask[above]).any()
    ]
    if not gaps:
        return []
    listed = ", ".join(
        f"{below + 1}" if above == below + 2 else f"{below + 1} to {above - 1}" for below, above in gaps[:4]
    )
    more = f" and {len(gaps) - 4} more gaps" if len(gaps) > 4 else ""
    return [
        f"has no contour on the slices {listed}{more} (from 0) between contours above each other; they stay empty"
    ]


def _contour(item: Dataset, reference: Series, where: str) -> tuple[int, float, Contour]:
    """The slice a contour belongs to, the index of its plane, and its points in pixel indices."""
    try:
        with quiet():
            points = np.array([float(number) for number in item.ContourData]).reshape(-1, 3)
    except Exception as error:  # text that is not a number, or a count that is not a multiple of 3
        raise DataError.at(
            where, f"its points are damaged ({gist(error)})", "export the contours again"
        ) from error
    if any(item.get("ContourOffsetVector") or ()):
        raise DataError.at(
            where, "has an offset (Contour Offset Vector)", "export the contours again, without it"
        )
    grid = reference.volume.grid
    indices = grid.to_indices(points)
    if not np.isfinite(indices).all():
        raise DataError.at(where, "has points that are not finite numbers", "export the contours again")
    along = indices[:, 2]
    if np.ptp(along) > FLATNESS:
        raise DataError.at(
            where,
            f"is not parallel to the slices (its points are {np.ptp(along):.2f} slices apart)",
            "give the series that it was drawn on",
        )
    plane = float(along.mean())
    last = grid.size_xyz[2] - 1
    if not -0.5 <= plane <= last + 0.5:
        beyond = max(-plane, plane - last) * grid.spacing_xyz_mm[2]
        raise DataError.at(
            where,
            f"lies {beyond:.2f} mm beyond the series' {('first' if plane < 0 else 'last')} slice",
            "give the whole series that it was drawn on",
        )
    contour = indices[:, :2]
    size_xy = np.array(grid.size_xyz[:2])
    if (contour.max(axis=0) < -0.5).any() or (contour.min(axis=0) > size_xy - 0.5).any():
        raise DataError.at(where, "lies beside the image", "give the series that it was drawn on")
    off_mm = np.maximum(-contour, contour - size_xy).max() * max(grid.spacing_xyz_mm[:2])
    if off_mm > STRAY_MM:
        raise DataError.at(where, f"has a point {off_mm:.3g} mm off the image", "export the contours again")
    return min(max(round(plane), 0), last), plane, contour
