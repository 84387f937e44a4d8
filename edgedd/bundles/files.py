"""The files of a bundle: what they are called, and how large they may be.

set.safetensors    the synthetic set            predict.onnx           images -> logits
train_step.onnx    one optimizer step           manifest.json          what it is and what belongs to it
CARD.md            what people should know      target.toml            the board it was made for, whole
weights.safetensors   where training starts (only when the network came with weights or was trained)
predict.int8.onnx     images -> logits with those weights, quantised (only with them)
manifest.sig          Ed25519 signature of manifest.json (only when it was signed), see edgedd.bundles.signature
<student>.train_step.onnx, <student>.predict.onnx   of each further student; those above are of the first
"""

import re

VERSION = 3  # of a bundle with several students; with one it is 2, which older readers take
ARCHIVE = ".edgedd.zip"
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
SET, TRAIN_STEP, PREDICT = "set.safetensors", "train_step.onnx", "predict.onnx"
WEIGHTS, PREDICT_INT8 = "weights.safetensors", "predict.int8.onnx"
CARD, TARGET = "CARD.md", "target.toml"
NEEDED = (SET, TRAIN_STEP, PREDICT)
OF_EACH_STUDENT = (TRAIN_STEP, PREDICT)
MOST_STUDENTS = 16
MAX_MANIFEST, SIGNATURE_BYTES = 2**18, 64
MOST_BYTES = {  # of each file beside the manifest
    SET: 2**28,
    TRAIN_STEP: 2**24,
    PREDICT: 2**24,
    WEIGHTS: 2**28,
    PREDICT_INT8: 2**28,
    CARD: 2**16,
    TARGET: 2**16,
}
STUDENT_NAME = re.compile(r"[a-z][a-z0-9-]{0,39}")


def file_of(student: str, name: str) -> str:
    """What the file `name`, such as TRAIN_STEP, of a further student is called."""
    return f"{student}.{name}"


def most_bytes(name: str) -> int | None:
    """How many bytes a bundle's file of this name has at most; None when no bundle has such a file."""
    student, _, file = name.partition(".")
    if file in OF_EACH_STUDENT and STUDENT_NAME.fullmatch(student):
        return MOST_BYTES[file]
    return MOST_BYTES.get(name)
