"""Points and lines of RT Structure Sets and Structured Reports."""

import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage

from focalis.dicom.drawn_points import DrawnPoint, read_points
from focalis.errors import DataError, FileWarning


def item(**values):
    made = Dataset()
    for keyword, value in values.items():
        setattr(made, keyword, value)
    return made


def code(value, scheme="DCM"):
    return [item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning="x")]


def save(path, sop_class, **values):
    made = item(SOPClassUID=sop_class, SOPInstanceUID="1.2.3", **values)
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = sop_class
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.save_as(path, enforce_file_format=True)
    return path


def structures(path, *contours):
    drawn = [
        item(ContourGeometricType=kind, NumberOfContourPoints=len(data) // 3, ContourData=data)
        for kind, data in contours
    ]
    return save(
        path,
        RTStructureSetStorage,
        StructureSetROISequence=[item(ROINumber=7, ROIName="target", ReferencedFrameOfReferenceUID="1.9")],
        ROIContourSequence=[item(ReferencedROINumber=7, ContourSequence=drawn)],
    )


def report(path, *content):
    group = item(ValueType="CONTAINER", ContentSequence=list(content), ConceptNameCodeSequence=code("125007"))
    return save(path, ComprehensiveSRStorage, ContentSequence=[group])


def graphic(kind, data, *, frame="", image="", number=None):
    made = item(ValueType="SCOORD3D" if frame else "SCOORD", GraphicType=kind, GraphicData=data)
    if frame:
        made.ReferencedFrameOfReferenceUID = frame
    else:
        reference = item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=image)
        if number:
            reference.ReferencedFrameNumber = number
        made.ContentSequence = [item(ValueType="IMAGE", ReferencedSOPSequence=[reference])]
    return made


def test_points_and_lines_of_a_structure_set_have_its_name_and_frame(tmp_path):
    path = structures(tmp_path / "rt.dcm", ("POINT", [1, -2, 3.5]), ("OPEN_PLANAR", [1, 2, 3, 4, 5, 6]))
    assert read_points(path) == (
        DrawnPoint(((1, -2, 3.5),), "target", "1.9"),
        DrawnPoint(((1, 2, 3), (4, 5, 6)), "target", "1.9"),
    )


def test_contours_beside_points_are_said_and_contours_alone_are_refused(tmp_path):
    square = ("CLOSED_PLANAR", [0, 0, 0, 1, 0, 0, 1, 1, 0])
    with pytest.warns(FileWarning, match="only its points and lines are used, not 1 others"):
        assert len(read_points(structures(tmp_path / "a.dcm", ("POINT", [1, 2, 3]), square))) == 1
    with pytest.raises(DataError, match="no point and no line; it holds CLOSED_PLANAR"):
        read_points(structures(tmp_path / "b.dcm", square))


def test_graphics_of_a_report_are_points_in_the_patient_or_on_an_image(tmp_path):
    tracking = item(ValueType="TEXT", ConceptNameCodeSequence=code("112039"), TextValue="L1")
    length = item(
        ValueType="NUM", ContentSequence=[graphic("POLYLINE", [10, 20, 30, 40], image="1.5", number=4)]
    )
    path = report(
        tmp_path / "sr.dcm",
        tracking,
        graphic("POINT", [1, 2, 3], frame="1.9"),
        graphic("MULTIPOINT", [1, 2, 3, 4, 5, 6], frame="1.9"),
        length,
    )
    assert read_points(path) == (
        DrawnPoint(((1, 2, 3),), "L1", "1.9"),
        DrawnPoint(((1, 2, 3),), "L1", "1.9"),
        DrawnPoint(((4, 5, 6),), "L1", "1.9"),
        DrawnPoint(((9.5, 19.5, 4), (29.5, 39.5, 4)), "L1", "", "1.5"),
    )


def test_the_centroids_of_focalis_own_reports_are_points(tmp_path):
    numbers = [
        item(
            ValueType="NUM",
            ConceptNameCodeSequence=code(f"centroid-{axis}", "99FOCALIS"),
            MeasuredValueSequence=[item(NumericValue=value)],
        )
        for axis, value in zip("zyx", (3, -2, 1.5), strict=True)
    ]
    (found,) = read_points(report(tmp_path / "sr.dcm", *numbers))
    np.testing.assert_allclose(found.ends, [(1.5, -2, 3)])


@pytest.mark.parametrize(
    "content",
    [
        graphic("POLYGON", [0, 0, 0, 1, 1, 1, 2, 2, 2], frame="1.9"),
        graphic("POINT", [1, 2], frame="1.9"),
        item(ValueType="SCOORD", GraphicType="POINT", GraphicData=[1, 2]),
        item(ValueType="TEXT", TextValue="nothing"),
    ],
)
def test_a_report_without_a_usable_point_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"sr\.dcm: "):
        read_points(report(tmp_path / "sr.dcm", content))


def test_an_image_is_not_a_file_of_points(tmp_path):
    with pytest.raises(DataError, match="neither an RT Structure Set nor a Structured Report"):
        read_points(save(tmp_path / "ct.dcm", CTImageStorage))
