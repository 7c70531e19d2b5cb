"""Labels of logarithmic axes in plain text: `STYLE` sets no formulas."""

from __future__ import annotations

import re
from typing import Any

from matplotlib.axis import Axis
from matplotlib.ticker import Formatter, LogFormatterMathtext

RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class PlainLogarithms(Formatter):
    """The labels of a formatter of Matplotlib, their formulas in plain text.

    Args:
        formulas: the formatter.
    """

    def __init__(self, formulas: LogFormatterMathtext) -> None:
        self.formulas = formulas

    def set_axis(self, axis: Any) -> None:
        """The axis that is labeled."""
        super().set_axis(axis)
        self.formulas.set_axis(axis)

    def set_locs(self, locs: Any) -> None:
        """The places of all labels."""
        super().set_locs(locs)
        self.formulas.set_locs(locs)

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label at x."""
        return in_plain_text(self.formulas(x, pos))


def in_plain_text(formula: str) -> str:
    r"""What Matplotlib writes beside a logarithmic axis.

    >>> in_plain_text(r"$\mathdefault{-2\times10^{-5}}$")
    '-2×10⁻⁵'
    """
    text = formula.removeprefix(r"$\mathdefault{").removesuffix("}$").replace(r"\times", "×")
    return re.sub(r"\^\{(.*?)\}", lambda found: found[1].translate(RAISED), text)


def label_plainly(axis: Axis) -> None:
    """Replace the formulas beside an axis, if it is logarithmic."""
    major, minor = axis.get_major_formatter(), axis.get_minor_formatter()
    if isinstance(major, LogFormatterMathtext):
        axis.set_major_formatter(PlainLogarithms(major))
    if isinstance(minor, LogFormatterMathtext):
        axis.set_minor_formatter(PlainLogarithms(minor))
