"""Quantised prediction: calibrated on the set alone, of the weights that the bundle brings."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

import edgedd
from edgedd.bundles.files import PREDICT_INT8, WEIGHTS
from edgedd.cli import app
from edgedd.errors import BundleError, SettingError
from edgedd.exporting import export

RECIPE = edgedd.Recipe(student_lr=0.02, steps=150, batch_size=64)


@pytest.fixture(scope="module")
def data() -> edgedd.LabelledImages:
    return edgedd.load_data("digits")


@pytest.fixture(scope="module")
def synthetic() -> edgedd.SyntheticSet:
    return edgedd.distill("digits", method="random", ipc=10, labels="hard", recipe=RECIPE)


@pytest.mark.parametrize("student", ["convnet2-w16", "resnet8", "mlp"])
def test_int8_agrees_with_float_on_most_images(
    student: str, synthetic: edgedd.SyntheticSet, data: edgedd.LabelledImages, tmp_path: Path
) -> None:
    export(synthetic, tmp_path / "bundle", student=student, quantize=True)
    trained = edgedd.Student.load(tmp_path / "bundle")
    images = data.test_images
    logits = trained.predict(images), trained.predict(images, int8=True)
    assert not np.array_equal(*logits)
    assert np.mean(logits[0].argmax(1) == logits[1].argmax(1)) > 0.93
    accuracies = [trained.evaluate(images, data.test_labels, int8=int8) for int8 in (False, True)]
    assert min(accuracies) > 0.6
    nodes = onnx.load(tmp_path / "bundle" / PREDICT_INT8).graph.node
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in nodes}


def test_it_is_a_quarter_of_the_float_weights(synthetic: edgedd.SyntheticSet, tmp_path: Path) -> None:
    bundle = export(synthetic, tmp_path / "bundle", student="mlp", quantize=True)
    assert bundle.files[PREDICT_INT8]["bytes"] < 0.4 * bundle.files[WEIGHTS]["bytes"]


def test_int8_is_refused_without_its_graph_or_after_training(synthetic: edgedd.SyntheticSet, tmp_path: Path) -> None:
    export(synthetic, tmp_path / "plain", student="mlp")
    images = np.zeros((1, 8, 8), np.uint8)
    with pytest.raises(SettingError, match="the int8 graph has the bundle's weights"):
        edgedd.Student.load(tmp_path / "plain").predict(images, int8=True)
    trained = edgedd.Student.load(tmp_path / "plain")
    trained.save(tmp_path / "weights.safetensors")
    export(synthetic, tmp_path / "given", student="mlp", weights=tmp_path / "weights.safetensors")
    student = edgedd.Student.load(tmp_path / "given")
    np.testing.assert_array_equal(student.predict(images), trained.predict(images))
    with pytest.raises(BundleError, match=r"has no predict.int8.onnx, wanted one of .*export it again with it"):
        student.predict(images, int8=True)
    export(synthetic, tmp_path / "given", student="mlp", weights=tmp_path / "weights.safetensors", quantize=True)
    student = edgedd.Student.load(tmp_path / "given")
    student.predict(images, int8=True)
    student.fit(steps=1)
    with pytest.raises(SettingError, match="trained since"):
        student.predict(images, int8=True)


def test_the_command_compares_both_on_test_images(
    synthetic: edgedd.SyntheticSet, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    synthetic.save(tmp_path / "set.safetensors")
    folder = str(tmp_path / "bundle")
    words = ["export", str(tmp_path / "set.safetensors"), "--student", "convnet2-w8", "--quantize", "--data", "digits"]
    result = CliRunner().invoke(app, [*words, "-o", folder])
    assert result.exit_code == 0, result.output
    assert "WARNING" not in caplog.text + capfd.readouterr().err
    assert "test accuracy in float32:" in result.output and "test accuracy in int8:" in result.output
    np.save(tmp_path / "images.npy", edgedd.load_data("digits").test_images[:3, 0])
    for more in ([], ["--int8"]):
        result = CliRunner().invoke(app, ["predict", folder, str(tmp_path / "images.npy"), *more])
        assert result.exit_code == 0 and result.output.count("images.npy") == 3
