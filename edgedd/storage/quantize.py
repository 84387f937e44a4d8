"""Numbers in few bits: float16, or unsigned codes of 8, 4 or 2 bits with a float16 scale and an optional zero.

    value = scale * (code - zero)

A missing `zero` stands for 2^(bits-1), and for 1.5 at 2 bits (so that all four levels are used). Codes narrower than a
byte are packed with the first code in the lowest bits. Pure numpy: server and device read the same way.
"""

import numpy as np

from edgedd.errors import SettingError

BITS = (16, 8, 4, 2)


def default_zero(bits: int) -> float:
    """The code that stands for the value 0 when a factor has no `zero` tensor."""
    return 1.5 if bits == 2 else float(2 ** (bits - 1))


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take."""
    return (count * bits + 7) // 8


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes (any shape, uint8) -> packed bytes (packed_size,), uint8; 8-bit codes keep their shape."""
    if bits == 8:
        return codes
    per_byte = 8 // bits
    flat = np.zeros(packed_size(codes.size, bits) * per_byte, np.uint8)
    flat[: codes.size] = codes.reshape(-1)
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    return np.asarray(np.bitwise_or.reduce(flat.reshape(-1, per_byte) << shifts, axis=1), np.uint8)


def unpack(packed: np.ndarray, bits: int, shape: tuple[int, ...]) -> np.ndarray:
    """The inverse of `pack`: uint8 codes of `shape`."""
    if bits == 8:
        return packed.reshape(shape)
    per_byte = 8 // bits
    shifts = np.arange(per_byte, dtype=np.uint8) * bits
    codes = (packed.reshape(-1, 1) >> shifts) & (2**bits - 1)
    return np.asarray(codes.reshape(-1)[: int(np.prod(shape))].reshape(shape), np.uint8)


def dequantize(codes: np.ndarray, bits: int, scale: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
    """float32 values of uint8 codes; `scale` and `zero` broadcast against the codes."""
    offset = np.float32(default_zero(bits)) if zero is None else zero.astype(np.float32)
    return (codes.astype(np.float32) - offset) * scale.astype(np.float32)


def quantize(values: np.ndarray, bits: int, scale: np.ndarray, zero: np.ndarray | None = None) -> np.ndarray:
    """uint8 codes nearest to `values` (ties to even) under `scale` (float16, positive) and `zero`."""
    offset = np.float32(default_zero(bits)) if zero is None else zero.astype(np.float32)
    levels = values.astype(np.float32) / scale.astype(np.float32) + offset
    return np.clip(np.rint(levels), 0, 2**bits - 1).astype(np.uint8)


def fit_scale(values: np.ndarray, bits: int, scale_shape: tuple[int, ...]) -> np.ndarray:
    """The float16 scale, constant along the axes where `scale_shape` is 1, with the least squared error.

    Candidates clip the largest magnitude to between 35 % and 100 %: few bits gain from clipping rare large values.
    """
    if bits not in (8, 4, 2):
        raise SettingError(f"bits={bits!r}, wanted one of 8, 4, 2 for a scaled factor")
    if len(scale_shape) != values.ndim:
        raise SettingError(f"scale shape {scale_shape} has not as many axes as the factor's {values.shape}")
    axes = tuple(axis for axis, size in enumerate(scale_shape) if size == 1)
    largest = np.abs(values).max(axis=axes, keepdims=True)
    best = np.full(largest.shape, np.inf, np.float32)
    chosen = np.ones(largest.shape, np.float16)
    for clip in (1.0,) if bits == 8 else np.linspace(0.35, 1.0, 14):
        positive_levels = 1.5 if bits == 2 else 2 ** (bits - 1) - 1
        scale = _storable(largest * clip / positive_levels)
        error = (dequantize(quantize(values, bits, scale), bits, scale) - values) ** 2
        error = error.sum(axis=axes, keepdims=True)
        better = error < best
        best, chosen = np.where(better, error, best), np.where(better, scale, chosen)
    return chosen


def fit_range(values: np.ndarray, bits: int, scale_shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero (float16) that span the smallest to the largest value and 0: for images, which are not centred.

    With 0 in the range the zero is a code, 0..2^bits - 1, which float16 holds well even when all values are equal.
    """
    axes = tuple(axis for axis, size in enumerate(scale_shape) if size == 1)
    low = np.minimum(values.min(axis=axes, keepdims=True), 0)
    high = np.maximum(values.max(axis=axes, keepdims=True), 0)
    scale = _storable((high - low) / (2**bits - 1))
    zero = np.clip(-low / scale.astype(np.float32), 0, 2**bits - 1).astype(np.float16)
    return scale, zero


def _storable(scale: np.ndarray) -> np.ndarray:
    """float16, kept positive and finite so that a constant factor still has a usable scale."""
    return np.asarray(np.clip(scale, 2.0**-24, 60_000), np.float16)
