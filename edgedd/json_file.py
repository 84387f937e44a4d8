"""A JSON file that a command printed earlier: bounded before it is read, and refused in one line."""

import json
import os
from pathlib import Path
from typing import Any

from edgedd.errors import SettingError


def read_json(path: str | os.PathLike[str], most_bytes: int, wanted: str) -> Any:
    """The values of a file of at most `most_bytes`; `wanted` ends each error. Raises SettingError."""
    try:
        if not Path(path).is_file():
            raise SettingError(f"{path} is missing or no file, {wanted}")
        with open(path, "rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise SettingError(f"{path} has more than {most_bytes} bytes, {wanted}")
        return json.loads(content)
    except OSError as error:
        raise SettingError(f"cannot read {path}: {error.strerror}; {wanted}") from error
    except (ValueError, RecursionError) as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"{path} is not JSON, {wanted}") from error
