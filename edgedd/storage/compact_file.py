"""The compact file of a synthetic set (docs/format.md, section 8): the same tensors, entropy-coded.

    b"edd\\x03"   deflated: metadata, counts, float tensors   states, words and bits of the coder (edgedd.storage.rans)

Metadata is the JSON of the plain file, deflated with a preset dictionary. Codes and labels go through the contexts of
edgedd.storage.code_model. What reading may take is bounded by the file's bytes: see MOST_CODES and MOST_TEXT.
"""

import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from edgedd.errors import FormatError
from edgedd.parameterization import Parameterization
from edgedd.storage import quantize, set_metadata
from edgedd.storage.code_model import code_coefficients, code_labels, lanes_for
from edgedd.storage.rans import Coder, Decoder, Encoder
from edgedd.storage.set_tensors import DTYPES, Spec, check_count, check_values, tensor_specs

MAGIC = b"edd\x03"
MOST_CODES = 256  # codes and labels that a byte of the file may stand for
MOST_TEXT = 2**18  # bytes of metadata, and of float tensors besides MOST_CODES a byte
LABEL_STEPS = (255, 85, 51, 17, 15, 5, 3, 1)  # the divisors of 255
_COUNTS = struct.Struct("<IIB")  # images, words of the coder, step of the labels
_RECIPE = '"recipe":{"student_lr":0.02,"momentum":0.9,"weight_decay":0.0005,"steps":2000,"batch_size":128,'
DICTIONARY = (
    '"0","1","2","3","4","5","6","7","8","9"'
    '"T-shirt/top","Trouser","Pullover","Dress","Coat","Sandal","Shirt","Sneaker","Bag","Ankle boot"'
    '"airplane","automobile","bird","cat","deer","dog","frog","horse","ship","truck"'
    " --method random --method dm --ipc 10 --iterations 1000 --compact --parameterization pixels --rank 8 --bits 4"
    '"kind":"pixels","shape":[1,8,8]"kind":"formation","formation":2,"kind":"shared_basis","half":true,'
    '"schedule":"constant""step""linear""nesterov""adamw""steps":600,"weight_decay":0.005,'
    '"rotate":15,"cutout":0.25,"colour":0.5,"scale":0.2,"flip":0.5,"shift":3,"method":"random","seed":1,'
    '{"version":1,"parameterization":{"kind":"low_rank","shape":[1,28,28],"rank":14,"subspaces":1,"bits":4},'
    '{"version":3,"parameterization":{"kind":"dct","shape":[3,32,32],"rank":16,"bits":8},'
    f'{_RECIPE}"augmentation":{{"flip":0.5,"shift":2}},"schedule":"cosine","optimizer":"sgd"}},"classes":["'
    '],"provenance":{"method":"frepo","data":"","seed":0,"iterations":3000,"edgedd":"0.1.0",'
    '"command":"edgedd distill --data .npz --method frepo --bytes 30720 --minutes 10 --seed 0 --compact"}}'
).encode()


def serialize(
    parameterization: Parameterization, tensors: Mapping[str, np.ndarray], text: str, num_classes: int
) -> bytes:
    """The bytes of a set whose metadata is `text`; equal sets give equal bytes."""
    count = len(tensors["labels"])
    specs = tensor_specs(parameterization, count, num_classes)
    step = next(s for s in LABEL_STEPS if not (tensors["labels"] % s).any())
    encoder = Encoder(_lanes(parameterization, count, num_classes))
    _code(encoder, parameterization, (count, num_classes), step, tensors)
    states, words, bits = encoder.finish()
    plain = b"".join(_planes(tensors[name], spec) for name, spec in sorted(specs.items()) if spec[0] != "U8")
    front = deflated(text.encode() + b"\0" + _COUNTS.pack(count, words.size, step) + plain)
    return MAGIC + front + states.astype("<u4").tobytes() + words.astype("<u2").tobytes() + bits.tobytes()


def deflated(front: bytes) -> bytes:
    """What begins with metadata, deflated with DICTIONARY before it."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_DEFAULT_STRATEGY, DICTIONARY)
    return squeezer.compress(front) + squeezer.flush()


def parse(content: bytes) -> dict[str, Any]:
    """Bytes of a compact file -> the fields of a SyntheticSet. Raises FormatError or SettingError."""
    front, coded = _inflated(content)
    text, _, rest = front.partition(b"\0")
    fields = _metadata(text)
    if len(rest) < _COUNTS.size:
        raise FormatError("a compact set that ends too early; it is truncated, copy it again")
    parameterization, num_classes = fields["parameterization"], len(fields["classes"])
    count, words, step = _COUNTS.unpack_from(rest)
    if step not in LABEL_STEPS:
        raise FormatError(f"label step {step}, wanted a divisor of 255; the file is damaged, copy it again")
    check_count(parameterization, count, num_classes)
    codes = _symbols(parameterization, count, num_classes)
    if codes > MOST_CODES * len(content):
        raise FormatError(f"{codes} codes in {len(content)} bytes, wanted at most {MOST_CODES} a byte")
    specs = tensor_specs(parameterization, count, num_classes)
    tensors = _floats(rest[_COUNTS.size :], specs)
    lanes = _lanes(parameterization, count, num_classes)
    if len(coded) < 4 * lanes + 2 * words:
        raise FormatError("a compact set that ends too early; it is truncated, copy it again")
    states, bits = np.frombuffer(coded, "<u4", lanes), np.frombuffer(coded, np.uint8, -1, 4 * lanes + 2 * words)
    decoder = Decoder(states, np.frombuffer(coded, "<u2", words, 4 * lanes), bits)
    tensors |= _code(decoder, parameterization, (count, num_classes), step, None)
    decoder.check_end()
    check_values(tensors)
    return fields | {"tensors": {name: tensors[name] for name in specs}}


def _metadata(text: bytes) -> dict[str, Any]:
    if len(text) > MOST_TEXT:
        raise FormatError(
            f"{len(text)} bytes of metadata, wanted at most {MOST_TEXT}; the file is damaged, copy it again"
        )
    try:
        return set_metadata.from_text(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise FormatError("its metadata is not UTF-8 text; it is damaged, copy it again") from error


def front_bytes(content: bytes) -> int:
    """Bytes of magic, metadata and float tensors in a compact file; the rest are codes and labels."""
    return len(content) - len(_inflated(content)[1])


def _inflated(content: bytes) -> tuple[bytes, bytes]:
    """What was deflated, and what follows it."""
    reader = zlib.decompressobj(-15, DICTIONARY)
    try:
        front = reader.decompress(content[len(MAGIC) :], MOST_TEXT + MOST_CODES * len(content))
    except zlib.error as error:
        raise FormatError(f"a compact set whose header does not inflate ({error}); copy it again") from error
    if not reader.eof:
        raise FormatError("a compact set whose header has no end, or too late a one; it is damaged, copy it again")
    return front, reader.unused_data


def _code(
    coder: Coder,
    parameterization: Parameterization,
    shape: tuple[int, int],
    step: int,
    tensors: Mapping[str, np.ndarray] | None,
) -> dict[str, np.ndarray]:
    """All tensors of codes, then the labels of `shape` (n, K), through the coder."""
    done, bits = {}, parameterization.bits
    for name, size in _coded(parameterization, shape[0]).items():
        known = None if tensors is None else quantize.unpack(tensors[f"factors.{name}"], bits, size)
        done[f"factors.{name}"] = quantize.pack(code_coefficients(coder, size, bits, known), bits)
    labels = None if tensors is None else tensors["labels"] // step
    done["labels"] = np.asarray(step * code_labels(coder, shape, 255 // step, labels), np.uint8)
    return done


def _coded(parameterization: Parameterization, count: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the tensors of codes, by name of the factor."""
    shapes, scaled = parameterization.factor_shapes(count), parameterization.scale_shapes(count)
    return {name: shapes[name] for name in sorted(scaled)}


def _symbols(parameterization: Parameterization, count: int, num_classes: int) -> int:
    return count * num_classes + sum(math.prod(shape) for shape in _coded(parameterization, count).values())


def _lanes(parameterization: Parameterization, count: int, num_classes: int) -> int:
    return min(count, lanes_for(_symbols(parameterization, count, num_classes)))


def _planes(values: np.ndarray, spec: Spec) -> bytes:
    """First bytes of all numbers, then the second ones, ...: they deflate better so."""
    raw = np.ascontiguousarray(values.astype(DTYPES[spec[0]])).reshape(-1).view(np.uint8)
    return np.ascontiguousarray(raw.reshape(values.size, -1).T).tobytes()


def _floats(content: bytes, specs: Mapping[str, Spec]) -> dict[str, np.ndarray]:
    tensors, place = {}, 0
    for name, (dtype, shape) in sorted(specs.items()):
        if dtype == "U8":
            continue
        size, each = math.prod(shape), DTYPES[dtype].itemsize
        raw = np.frombuffer(content[place : place + size * each], np.uint8)
        place += size * each
        if raw.size != size * each:
            raise FormatError(f"tensor {name} is cut off; the file is truncated, copy it again")
        planes = np.ascontiguousarray(raw.reshape(each, size).T)
        tensors[name] = planes.reshape(-1).view(DTYPES[dtype]).reshape(shape)
    if place != len(content):
        raise FormatError(f"{len(content) - place} bytes behind the float tensors; the file is damaged, copy it again")
    return tensors
