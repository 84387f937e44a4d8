"""matplotlib figures as PNG files; matplotlib comes with the extra `distill`."""

import io
import os
import warnings
from typing import Any

from edgedd.atomic import refuse_unwritable, write_bytes
from edgedd.errors import MissingExtra


def figure_for(path: str | os.PathLike[str], doing: str, **settings: Any) -> Any:
    """An empty Figure that will be saved at `path`; `doing` tells what it is for.

    Raises SettingError when nothing can be written there, MissingExtra without matplotlib.
    """
    refuse_unwritable(path)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("matplotlib", doing, "distill") from error
    return Figure(**settings)


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write the PNG, whole or not at all; letters that the font lacks are no reason to warn."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    write_bytes(path, buffer.getvalue())
