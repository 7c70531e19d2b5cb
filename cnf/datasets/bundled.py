"""Small real tables that come with scikit-learn, for examples and tests without a download."""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris, load_wine
from sklearn.utils import Bunch

BUNDLED: dict[str, Callable[..., Bunch]] = {
    "iris": load_iris,
    "wine": load_wine,
    "breast_cancer": load_breast_cancer,
    "diabetes": load_diabetes,
}


def bundled_table(name: str) -> pd.DataFrame:
    """Return the continuous features of a table by its name in `BUNDLED`, under scikit-learn's
    column names.

    Targets are left out, and so is `sex` of diabetes, which is binary. Diabetes has its columns
    centered and scaled as scikit-learn gives them; the other tables are in their own units.
    ValueError for an unknown name.

    >>> bundled_table("iris").shape
    (150, 4)
    """
    if name not in BUNDLED:
        raise ValueError(
            f"no bundled table is called {name!r}: expected one of {', '.join(BUNDLED)}"
        )
    return BUNDLED[name](as_frame=True).data.drop(columns="sex", errors="ignore")
