"""Every way edgedd refuses a user's input.

    EdgeddError(ValueError)
      DataError        a data set that cannot be read or used
      FormatError      a synthetic-set file that is damaged, hostile or newer than this reader
      BudgetError      nothing fits the bytes or the memory asked for
      SettingError     an option or hyperparameter with an impossible value
      TargetError      an unknown or malformed target profile
      ExportError      a network or set that cannot become a training graph
      BundleError      a bundle folder that is incomplete or altered
      MissingExtra     an optional dependency is needed and absent

Every message is one line: what was wrong, what was wanted, what to do next. The root makes sure of it, whatever a
hostile file or path puts into a message: unprintable characters are escaped and the middle of a long text is left out.
"""

LONGEST_MESSAGE = 600


def printable(text: str) -> str:
    """Text from a file or a path as it may be shown on a terminal: unprintable characters are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


class EdgeddError(ValueError):
    """Root of all errors that a user's input can cause; its message is one printable line of bounded length."""

    def __init__(self, message: str) -> None:
        text = printable(message)
        if len(text) > LONGEST_MESSAGE:
            text = f"{text[:400]} ... {text[-190:]}"
        super().__init__(text)


class DataError(EdgeddError):
    """A data set cannot be read or used."""


class FormatError(EdgeddError):
    """A synthetic-set file is damaged, hostile, or newer than this reader."""


class BudgetError(EdgeddError):
    """Nothing fits the bytes or the memory asked for."""


class SettingError(EdgeddError):
    """An option or hyperparameter has an impossible value."""


class TargetError(EdgeddError):
    """A target profile is unknown or malformed."""


class ExportError(EdgeddError):
    """A network or a set cannot become a training graph."""


class BundleError(EdgeddError):
    """A bundle folder is incomplete, altered or does not fit this runtime."""


class MissingExtra(EdgeddError):
    """An optional dependency is needed and is not installed."""

    def __init__(self, package: str, purpose: str, extra: str) -> None:
        super().__init__(f"{package} is not installed and {purpose} needs it: pip install 'edgedd[{extra}]'")
