"""Rows of a set in S places (subspaces, or tiles of a stored image), decoded a place at a time in tensorly's calls."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from edgedd.errors import MissingExtra, SettingError
from edgedd.parameterization.stored_images import whole

MAX_SUBSPACES = 65_536


def tensorly() -> Any:
    """The package, imported when it is needed. Raises MissingExtra."""
    try:
        import tensorly
    except ImportError as error:
        raise MissingExtra("tensorly", "encoding or decoding compressed images in Python", "decode") from error
    return tensorly


def backend_of(tl: Any, factor: Any) -> AbstractContextManager[None]:
    """Calls inside run where the factor lies: numpy or torch."""
    context: AbstractContextManager[None] = tl.backend_context(
        "numpy" if isinstance(factor, np.ndarray) else "pytorch", local_threadsafe=True
    )
    return context


def check_subspaces(subspaces: int) -> None:
    """Raises SettingError for a number of subspaces that no set may have."""
    if not whole(subspaces) or not 1 <= subspaces <= MAX_SUBSPACES:
        raise SettingError(f"subspaces={subspaces!r}, wanted a whole number in [1, {MAX_SUBSPACES}]")


def subspace(rows: Any, count: int, subspaces: int) -> Any:
    """floor(i S / n): neighbouring classes share a subspace, and S = K gives each class its own."""
    return rows * subspaces // count


def index_of(rows: Any, count: int) -> np.ndarray:
    """Rows, an index array or a slice, as indices (b,) in 0..count-1."""
    index: np.ndarray = np.arange(count)[rows if isinstance(rows, slice) else np.asarray(rows)]
    return index


def place_by_place(tl: Any, place: np.ndarray, decoded: Callable[[int, np.ndarray], Any]) -> Any:
    """Images of all rows in their order; `decoded(p, where)` gives those of the rows `where`, all in place p."""
    numbers = np.unique(place) if len(place) else np.zeros(1, int)
    parts = [decoded(int(p), np.flatnonzero(place == p)) for p in numbers]
    if len(parts) == 1:
        return parts[0]
    order = np.argsort(place, kind="stable")
    return tl.concatenate(parts, axis=0)[np.argsort(order, kind="stable")]
