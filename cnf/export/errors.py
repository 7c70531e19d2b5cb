"""The error of exports."""


class ExportError(ValueError):
    """A model cannot be exported; the message gives the reason and the remedy."""
