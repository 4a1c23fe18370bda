"""The module of 3D Slicer with `focalis predict` itself, and with Slicer's public API played by stand-ins.

Slicer has no package that could be installed here; what the stand-ins answer follows its documentation.
"""

import importlib.util
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from device_work import GRID, block, save_tiny_model

from focalis.cli.main import main
from focalis.volume import Volume, read_segments, read_volume, write_volume

MODULE = Path(__file__).parents[2] / "extras" / "slicer" / "Focalis.py"


class Node:
    """A node of the scene; its parent transform shifts by `shift`."""

    def __init__(self, name, shift=(0, 0, 0)):
        self.name, self.shift, self.parent, self.geometry_of = name, np.array(shift), None, None

    def GetName(self):  # noqa: N802
        return self.name

    def SetName(self, name):  # noqa: N802
        self.name = name

    def GetTransformNodeID(self):  # noqa: N802
        return "transform" if self.shift.any() else None

    def SetAndObserveTransformNodeID(self, parent):  # noqa: N802
        self.parent = parent

    def SetReferenceImageGeometryParameterFromVolumeNode(self, volume):  # noqa: N802
        self.geometry_of = volume

    def TransformPointFromWorld(self, world, own):  # noqa: N802
        own[:] = np.subtract(world, self.shift).tolist()

    def TransformPointToWorld(self, own, world):  # noqa: N802
        world[:] = np.add(own, self.shift).tolist()


class Points:
    def __init__(self, *places):
        self.places = places

    def GetNumberOfControlPoints(self):  # noqa: N802
        return len(self.places)

    def GetNthControlPointPositionWorld(self, index, place):  # noqa: N802
        place[:] = self.places[index]


class Process:
    """`focalis` in this process."""

    def __init__(self, order):
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said), pytest.raises(SystemExit) as ended:
            main(order[1:])
        self.code = ended.value.code
        said.seek(0)
        self.stdout = said

    def wait(self):
        return self.code


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny_model(tmp_path_factory.mktemp("model") / "nodules.safetensors", channel="CT"))


@pytest.fixture
def slicer(monkeypatch):
    """Slicer's modules, and what the module under test asked of them."""
    scripted = ModuleType("slicer.ScriptedLoadableModule")
    for name in ("ScriptedLoadableModule", "ScriptedLoadableModuleWidget", "ScriptedLoadableModuleLogic"):
        base = type(name, (), {"__init__": lambda *_: None, "setup": lambda _: None})
        base.layout = MagicMock()
        setattr(scripted, name, base)
    slicer = ModuleType("slicer")
    slicer.orders, slicer.loaded = [], {}

    def save(node, path):
        write_volume(Volume(block().astype(np.int16), GRID), path)
        return node.name != "unsaved"

    def start(order):
        slicer.orders.append(order)
        return Process(order)

    def load_segmentation(path):
        slicer.loaded["mask"] = read_volume(path)
        slicer.loaded["segments"] = read_segments(Path(path))
        return Node("volume.seg")

    def load_node(path, kind):
        slicer.loaded[kind] = Path(path).read_text()
        return Node("volume")

    slicer.util = SimpleNamespace(
        saveNode=save,
        launchConsoleProcess=start,
        loadSegmentation=load_segmentation,
        loadNodeFromFile=load_node,
        errorDisplay=MagicMock(),
    )
    slicer.app, slicer.modules, slicer.mrmlScene = MagicMock(), MagicMock(), MagicMock()
    slicer.qMRMLNodeComboBox = MagicMock
    for name, module in (
        ("slicer", slicer),
        ("slicer.ScriptedLoadableModule", scripted),
        ("ctk", MagicMock()),
        ("qt", MagicMock()),
    ):
        monkeypatch.setitem(sys.modules, name, module)
    return slicer


@pytest.fixture
def module(slicer):  # noqa: ARG001
    spec = importlib.util.spec_from_file_location("Focalis", MODULE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_open_volume_gets_segments_and_a_table(module, slicer, model):
    volume, said = Node("CT chest", shift=(0, 0, 30)), []
    found = module.FocalisLogic().find(volume, model, "/opt/focalis/bin/focalis", say=said.append)
    (order,) = slicer.orders
    assert order[:3] == ["/opt/focalis/bin/focalis", "predict", model]
    assert slicer.loaded["mask"].grid == GRID
    assert slicer.loaded["mask"].array.any()
    assert [(each.value, each.name) for each in slicer.loaded["segments"]] == [(1, "nodule")]
    segmentation = found["segmentation"]
    assert (segmentation.name, segmentation.parent) == ("CT chest lesions", "transform")
    assert segmentation.geometry_of is volume
    assert slicer.loaded["TableFile"].startswith("lesion,")
    assert len(found["lesions"]) == len(slicer.loaded["TableFile"].splitlines()) - 1 > 0
    assert any("volume" in line for line in said)


def test_points_reach_the_program_in_lps_of_the_volume(module):
    words = module.FocalisLogic().at(
        Node("CT", shift=(10, 0, 0)), Points([12.0, -3.0, 7.5], [10.0, 1.0, 0.0])
    )
    assert words == ["--at", "-2.0000,3.0000,7.5000", "--at", "-0.0000,-1.0000,0.0000"]


def test_slices_are_led_to_a_lesion_in_ras_of_the_world(module, slicer):
    lesion = {"centroid_x_mm": "5.0", "centroid_y_mm": "-2.0", "centroid_z_mm": "30.0"}
    module.FocalisLogic().show(lesion, Node("CT", shift=(0, 0, 30)))
    slicer.modules.markups.logic().JumpSlicesToLocation.assert_called_once_with(-5.0, 2.0, 60.0, True)


def test_what_cannot_be_done_is_said(module, model, tmp_path):
    logic, said = module.FocalisLogic(), []
    with pytest.raises(ValueError, match="No volume"):
        logic.find(None, model)
    with pytest.raises(ValueError, match="no point"):
        logic.find(Node("CT"), model, points=Points())
    with pytest.raises(RuntimeError, match="could not be saved"):
        logic.find(Node("unsaved"), model)
    with pytest.raises(RuntimeError, match="detector"):
        logic.find(Node("CT"), model, points=Points([0.0, 0.0, 25.0]), say=said.append)
    with pytest.raises(RuntimeError, match=r"gone\.safetensors"):
        logic.find(Node("CT"), str(tmp_path / "gone.safetensors"), say=said.append)


def test_the_panel_runs_the_logic_and_shows_a_row_per_lesion(module, slicer, model):
    widget = module.FocalisWidget()
    widget.setup()
    widget.volume.currentNode = lambda: Node("CT chest")
    widget.points.currentNode = lambda: None
    widget.model.currentText, widget.command.currentPath = model, "focalis"
    widget.run_model()
    slicer.util.errorDisplay.assert_not_called()
    widget.table.setRowCount.assert_called_with(len(widget.lesions))
    assert widget.lesions
    widget.model.currentText = "missing.safetensors"
    widget.run_model()
    (told,), _ = slicer.util.errorDisplay.call_args
    assert "missing.safetensors" in told
    assert widget.lesions == []
    assert widget.run.enabled
