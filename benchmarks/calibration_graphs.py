"""The training graphs that `edgedd calibrate` times: ConvNet-3 of three widths on 3x32x32.

    python benchmarks/calibration_graphs.py

A device has no onnx package to make them with. Writes edgedd/device/graphs/*.onnx.gz; a test says when they are old.
"""

import gzip
from pathlib import Path

import edgedd.device
from edgedd.device.calibration import FORM, NUM_CLASSES, RECIPE, STUDENTS
from edgedd.exporting.export import student_network
from edgedd.exporting.training_graph import training_graph

FOLDER = Path(edgedd.device.__file__).parent / "graphs"


def main() -> None:
    """Write them; the same graphs give the same bytes."""
    for student in STUDENTS:
        model = training_graph(student_network(student, FORM.shape, NUM_CLASSES), FORM, RECIPE)
        path = FOLDER / f"{student}.onnx.gz"
        path.write_bytes(gzip.compress(model.SerializeToString(deterministic=True), mtime=0))
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
