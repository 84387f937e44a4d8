"""Few-bit numbers: the formula by hand, packing and its inverse, the bound on the rounding error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedd.errors import SettingError
from edgedd.storage import quantize

FEW = (8, 4, 2)


@given(bits=st.sampled_from(FEW), shape=st.tuples(st.integers(1, 5), st.integers(1, 7)), seed=st.integers(0, 99))
def test_unpack_is_the_inverse_of_pack(bits: int, shape: tuple[int, int], seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 2**bits, shape).astype(np.uint8)
    packed = quantize.pack(codes, bits)
    assert packed.size == quantize.packed_size(codes.size, bits) and packed.dtype == np.uint8
    assert np.array_equal(quantize.unpack(packed, bits, shape), codes)


def test_the_first_code_is_in_the_lowest_bits_and_the_rest_is_zero() -> None:
    assert quantize.pack(np.array([3, 10, 15], np.uint8), 4).tolist() == [0xA3, 0x0F]
    assert quantize.pack(np.array([3, 0, 1, 2, 1], np.uint8), 2).tolist() == [0b10_01_00_11, 0b01]


def test_values_by_hand() -> None:
    half, tenth = np.array([0.5], np.float16), np.array([10], np.float16)
    codes = np.array([0, 1, 2, 3], np.uint8)
    assert quantize.dequantize(codes, 2, half).tolist() == [-0.75, -0.25, 0.25, 0.75]
    assert quantize.dequantize(codes, 4, half).tolist() == [-4, -3.5, -3, -2.5]
    assert quantize.dequantize(codes, 8, half, tenth).tolist() == [-5, -4.5, -4, -3.5]
    assert [quantize.default_zero(bits) for bits in FEW] == [128, 8, 1.5]


@pytest.mark.parametrize("bits", FEW)
def test_quantizing_what_was_dequantized_changes_nothing(bits: int) -> None:
    codes, scale = np.arange(2**bits, dtype=np.uint8), np.array([0.25], np.float16)
    assert np.array_equal(quantize.quantize(quantize.dequantize(codes, bits, scale), bits, scale), codes)


@pytest.mark.parametrize("bits", FEW)
@pytest.mark.parametrize("offset", [0, 1, -3])
def test_a_range_errs_by_half_a_step(bits: int, offset: float) -> None:
    values = np.random.default_rng(bits).normal(offset, 1, (50, 3, 8, 8)).astype(np.float32)
    scale, zero = quantize.fit_range(values, bits, (1, 3, 1, 1))
    error = np.abs(quantize.dequantize(quantize.quantize(values, bits, scale, zero), bits, scale, zero) - values)
    # half a step, and what rounding scale and zero to float16 can push beyond the last code
    assert (error <= scale.astype(np.float32) * (0.5 + 2 * 2**bits * 2.0**-11) + 1e-6).all()


@pytest.mark.parametrize("value", [0.0, 0.5, -2.0, 1e-5])
@pytest.mark.parametrize("bits", FEW)
def test_a_constant_factor_survives(bits: int, value: float) -> None:
    values = np.full((4, 1, 2, 2), value, np.float32)
    scale, zero = quantize.fit_range(values, bits, (1, 1, 1, 1))
    back = quantize.dequantize(quantize.quantize(values, bits, scale, zero), bits, scale, zero)
    np.testing.assert_allclose(back, values, rtol=2e-3, atol=2e-5)


def test_eight_bits_err_by_half_a_step_and_fewer_bits_by_more() -> None:
    values = np.random.default_rng(0).normal(size=(200, 1, 3, 3)).astype(np.float32)
    errors = []
    for bits in FEW:
        scale = quantize.fit_scale(values, bits, (1, 1, 3, 3))
        error = quantize.dequantize(quantize.quantize(values, bits, scale), bits, scale) - values
        if bits == 8:
            assert (np.abs(error) <= scale.astype(np.float32) * (0.5 + 128 * 2.0**-11)).all()
        errors.append(float(np.mean(error**2)))
    # the best uniform quantizers of a normal variable err by 0.0115 (16 levels) and 0.1188 (4 levels) of its variance
    assert errors[0] < 2e-4 and errors[1] < 0.02 and errors[2] < 0.14


def test_impossible_bits_and_shapes_are_refused() -> None:
    with pytest.raises(SettingError, match="bits=16, wanted one of 8, 4, 2"):
        quantize.fit_scale(np.zeros((2, 2)), 16, (1, 1))
    with pytest.raises(SettingError, match="not as many axes"):
        quantize.fit_scale(np.zeros((2, 2)), 8, (1,))
