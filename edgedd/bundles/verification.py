"""Whether a bundle is whole and runs here: sums, signature, set, profile, weights, and every graph in onnxruntime."""

import os
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgedd.bundles.bundle import Bundle
from edgedd.bundles.files import (
    CARD,
    MANIFEST,
    PREDICT,
    PREDICT_INT8,
    SET,
    SIGNATURE,
    TARGET,
    TRAIN_STEP,
    WEIGHTS,
    file_of,
)
from edgedd.errors import BundleError, EdgeddError


class Check(NamedTuple):
    """A part of the bundle that is as it should be, and what was found."""

    part: str
    result: str


def verify(path: str | os.PathLike[str], *, require_signature: str | os.PathLike[str] | None = None) -> list[Check]:
    """Check every part of a bundle, folder or .edgedd.zip -> what was found, by part, in order.

    `require_signature` is a file with an Ed25519 public key (PEM), by which the manifest must be signed.

    Raises:
        BundleError, FormatError: the first part that is not as it should be, by name.
        SettingError: the key cannot be read.
        MissingExtra: a signature is required and the extra [sign] is not installed.
    """
    bundle = Bundle.load(path, require_signature=require_signature)
    strange = sorted({entry.name for entry in bundle.path.iterdir()} - {MANIFEST, SIGNATURE, *bundle.files})
    if strange:
        raise BundleError(f"{Path(path) / strange[0]} is not in the manifest: remove it, or export the bundle again")
    count, names = len(bundle.files), ", ".join(bundle.students)
    students = f"student{'s' if len(bundle.students) > 1 else ''} {names}"
    checks = [Check(MANIFEST, f"edgedd {bundle.edgedd}, {students}, {count} files, sizes and SHA-256 agree")]
    if bundle.signed:
        found = "present, not checked: name the key with --require-signature"
        checks.append(Check(SIGNATURE, found if require_signature is None else f"signed by {require_signature}"))
    try:
        return checks + [Check(name, text) for name, text in _contents(bundle).items()]
    except EdgeddError as error:  # an archive was unpacked somewhere: say what the user named
        raise type(error)(str(error).replace(str(bundle.path), str(path))) from error


def _contents(bundle: Bundle) -> dict[str, str]:
    """What each file holds. Raises BundleError, FormatError."""
    from edgedd.device import Student

    student = Student.load(bundle.path, threads=1)
    synthetic, shape = student.synthetic, student.bundle.image_shape
    image = np.zeros((1, *shape), np.uint8)
    found = {SET: f"{synthetic.count} images of {len(synthetic.classes)} classes"}
    found[TRAIN_STEP] = f"loads, {sum(array.size for array in student.parameters.values()):,} parameters"
    if bundle.holds(WEIGHTS):
        found[WEIGHTS] = "of this network, finite"
    found[PREDICT] = _runs(bundle, PREDICT, lambda: student.predict(image))
    for name in bundle.students[1:]:
        other = Student.load(bundle.path, threads=1, student=name)
        size = sum(array.size for array in other.parameters.values())
        found[file_of(name, TRAIN_STEP)] = f"loads, {size:,} parameters"
        found[file_of(name, PREDICT)] = _runs(other.bundle, PREDICT, partial(other.predict, image))
    if bundle.holds(PREDICT_INT8):
        found[PREDICT_INT8] = _runs(bundle, PREDICT_INT8, lambda: student.predict(image, int8=True))
    profile = bundle.profile()
    if profile is not None:
        found[TARGET] = profile.title
    if bundle.holds(CARD):
        found[CARD] = f"licence {bundle.licence or 'not stated'}"
    return found


def _runs(bundle: Bundle, name: str, predict: Any) -> str:
    try:
        logits = predict()
    except EdgeddError:
        raise
    except Exception as error:  # whatever onnxruntime raises
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BundleError(f"{bundle.file(name)} does not run ({reason}): export the bundle again") from error
    if logits.shape[0] != 1 or not np.isfinite(logits).all():
        raise BundleError(f"{bundle.file(name)} gives no finite logits: export the bundle again")
    return "loads and runs"
