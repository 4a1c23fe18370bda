"""A module of 3D Slicer: run a Focalis model on the volume that is open, show its segments and lesions.

It starts `focalis predict` of an environment of its own, so that Slicer's Python needs neither PyTorch nor Focalis. Add
this folder to "Additional module paths" in Slicer's settings. Uses Slicer's public Python API, 5.0 or later.
"""

import csv
import tempfile
from pathlib import Path

import ctk
import qt
import slicer
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)

SHIPPED = ("lidc-nodule",)
"""Models that come with Focalis, by name."""

COMMAND, MODEL = "Focalis/command", "Focalis/model"
"""Where Slicer's settings keep what was chosen last."""


class Focalis(ScriptedLoadableModule):
    """What Slicer lists."""

    def __init__(self, parent):
        """Name the module."""
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = "Focalis"
        parent.categories = ["Segmentation"]
        parent.dependencies = []
        parent.contributors = ["The Focalis developers"]
        parent.helpText = "Finds small irregular lesions with a trained model. For research use only."
        parent.acknowledgementText = "Apache License 2.0"


class FocalisWidget(ScriptedLoadableModuleWidget):
    """The panel: volume, model, points, run; what was said, and the lesions."""

    def setup(self):
        """Build the panel."""
        ScriptedLoadableModuleWidget.setup(self)
        self.logic = FocalisLogic()
        settings = qt.QSettings()
        form = qt.QFormLayout()
        self.layout.addLayout(form)

        self.volume = self._selector("vtkMRMLScalarVolumeNode")
        form.addRow("Volume", self.volume)
        self.model = qt.QComboBox()
        self.model.editable = True
        self.model.addItems(list(SHIPPED))
        self.model.setCurrentText(settings.value(MODEL, SHIPPED[0]))
        self.model.toolTip = "A model file, the folder of a run, or a model that comes with Focalis"
        form.addRow("Model", self.model)
        choose = qt.QPushButton("Choose a model file ...")
        choose.connect("clicked()", self.browse)
        form.addRow("", choose)
        self.points = self._selector("vtkMRMLMarkupsFiducialNode")
        self.points.noneEnabled = True
        self.points.toolTip = "For a guided model, such as lidc-nodule: a point in each lesion"
        form.addRow("Points", self.points)
        self.command = ctk.ctkPathLineEdit()
        self.command.currentPath = settings.value(COMMAND, "focalis")
        self.command.toolTip = "The program focalis of the environment that Focalis is installed in"
        form.addRow("Program", self.command)
        self.run = qt.QPushButton("Find lesions")
        self.run.connect("clicked()", self.run_model)
        self.layout.addWidget(self.run)

        self.said = qt.QPlainTextEdit()
        self.said.readOnly = True
        self.layout.addWidget(self.said)
        self.table = qt.QTableWidget()
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.connect("currentCellChanged(int,int,int,int)", self.go_to_lesion)
        self.layout.addWidget(self.table)
        self.lesions = []

    def browse(self):
        """Choose a model file."""
        path = qt.QFileDialog.getOpenFileName(None, "Model", "", "Models (*.safetensors)")
        if path:
            self.model.setCurrentText(path)

    def run_model(self):
        """Run the model and show what it found."""
        settings = qt.QSettings()
        settings.setValue(MODEL, self.model.currentText)
        settings.setValue(COMMAND, self.command.currentPath)
        self.said.clear()
        self.lesions = []
        self.show_lesions()
        self.run.enabled = False
        try:
            found = self.logic.find(
                self.volume.currentNode(),
                self.model.currentText,
                self.command.currentPath,
                self.points.currentNode(),
                self.said.appendPlainText,
            )
        except (ValueError, RuntimeError, OSError) as error:
            slicer.util.errorDisplay(str(error), windowTitle="Focalis")
            return
        finally:
            self.run.enabled = True
        self.lesions = found["lesions"]
        self.show_lesions()

    def show_lesions(self):
        """Fill the table, a row per lesion."""
        columns = list(self.lesions[0]) if self.lesions else []
        self.table.setRowCount(len(self.lesions))
        self.table.setColumnCount(len(columns))
        self.table.setHorizontalHeaderLabels(columns)
        for row, lesion in enumerate(self.lesions):
            for column, name in enumerate(columns):
                self.table.setItem(row, column, qt.QTableWidgetItem(lesion[name]))

    def go_to_lesion(self, row, _column, _previous_row, _previous_column):
        """Lead all slices to a lesion."""
        if 0 <= row < len(self.lesions):
            self.logic.show(self.lesions[row], self.volume.currentNode())

    def _selector(self, kind):
        selector = slicer.qMRMLNodeComboBox()
        selector.nodeTypes = [kind]
        selector.addEnabled = selector.removeEnabled = False
        selector.setMRMLScene(slicer.mrmlScene)
        return selector


class FocalisLogic(ScriptedLoadableModuleLogic):
    """What the panel does, without the panel."""

    def find(self, volume, model, command="focalis", points=None, say=print):
        """Run a model on a volume.

        Args:
            volume: the vtkMRMLScalarVolumeNode.
            model: a model file, the folder of a run, or the name of a model that comes with Focalis.
            command: the program focalis.
            points: for a guided model, a vtkMRMLMarkupsFiducialNode with a point in each lesion; or None.
            say: called with each line that the program prints.

        Returns:
            "segmentation" and "table", the new nodes, and "lesions", the rows of the table as dictionaries of text;
            places are in mm in the patient (LPS), before a transform of the volume.

        Raises:
            ValueError: there is no volume, or no point in the list.
            RuntimeError: the volume cannot be saved, or the program refused it; its last line says why.
            OSError: the program cannot be started.
        """
        if volume is None:
            raise ValueError("No volume is open; load one.")
        with tempfile.TemporaryDirectory() as folder:
            image, out = Path(folder) / "volume.nrrd", Path(folder) / "found"
            if not slicer.util.saveNode(volume, str(image)):
                raise RuntimeError("The volume could not be saved to a temporary file.")
            order = [command, "predict", model, str(image), "-o", str(out), "--format", "nrrd"]
            if points is not None:
                order += self.at(volume, points)
            self.start(order, say)
            table = out / "lesions" / "volume.csv"
            with table.open(encoding="utf-8", newline="") as file:
                lesions = list(csv.DictReader(file))
            name = f"{volume.GetName()} lesions"
            segmentation = slicer.util.loadSegmentation(str(out / "volume.seg.nrrd"))
            tabled = slicer.util.loadNodeFromFile(str(table), "TableFile")
        segmentation.SetName(name)
        # the program saw the volume as it lies in its own file
        segmentation.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        tabled.SetName(name)
        return {"segmentation": segmentation, "table": tabled, "lesions": lesions}

    def at(self, volume, points):
        """The points of a list as `--at X,Y,Z` in mm (LPS) of the volume's file."""
        count = points.GetNumberOfControlPoints()
        if not count:
            raise ValueError("The list holds no point; put one into each lesion, or choose no list.")
        words = []
        for index in range(count):
            world, own = [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]
            points.GetNthControlPointPositionWorld(index, world)
            volume.TransformPointFromWorld(world, own)
            right, anterior, superior = own
            words += ["--at", f"{-right:.4f},{-anterior:.4f},{superior:.4f}"]
        return words

    def start(self, order, say):
        """Run the program outside of Slicer's own environment, which would break its Python."""
        process = slicer.util.launchConsoleProcess(order)
        last = ""
        for line in process.stdout:
            last = line.strip() or last
            say(line.rstrip())
            slicer.app.processEvents()
        if process.wait():
            raise RuntimeError(last or "focalis ended without a word; try the same command in a terminal.")

    def show(self, lesion, volume=None):
        """Lead all slices to the centre of a lesion, a row of the table."""
        x, y, z = (float(lesion[f"centroid_{axis}_mm"]) for axis in "xyz")
        own, world = [-x, -y, z], [-x, -y, z]
        if volume is not None:
            volume.TransformPointToWorld(own, world)
        slicer.modules.markups.logic().JumpSlicesToLocation(*world, True)
