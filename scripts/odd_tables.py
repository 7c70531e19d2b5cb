"""Ten tables with ordinary and odd rows: one class or subgroup is ordinary, and another one is odd.

Eight come from the folder named by CNF_SHARED_DATA, and two from scikit-learn. Cells are dequantized over
the grid to which they were rounded, as in `real_tables`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from real_tables import FOLDER
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.decomposition import PCA

Pair = tuple[pd.DataFrame, pd.DataFrame]  # ordinary rows, odd rows
# The grids of the columns that a csv file has whole or rounded.
BEIJING = {"pm2.5": 1.0, "DEWP": 1.0, "TEMP": 1.0, "PRES": 1.0, "Iws": 0.01, "hour": 1.0}
DIAMONDS = {
    **{"carat": 0.01, "depth": 0.1, "table": 1.0, "price": 1.0},
    **{"x": 0.01, "y": 0.01, "z": 0.01},
}
HOUSING = {
    **{"housing_median_age": 1.0, "total_rooms": 1.0, "total_bedrooms": 1.0, "population": 1.0},
    **{"households": 1.0, "median_income": 0.0, "median_house_value": 100.0},
}
COMPONENTS = 16  # of a digit's 64 pixels


def spread(rows: pd.DataFrame, steps: np.ndarray) -> pd.DataFrame:
    """The rows with every cell drawn evenly within the step of its column."""
    return rows + np.random.default_rng(0).uniform(size=rows.shape) * steps


def _array(name: str, label: str | None = None) -> tuple[pd.DataFrame, np.ndarray | None]:
    """A table of the folder, and one more of its arrays."""
    with np.load(FOLDER / name / "data.npz", allow_pickle=False) as data:
        columns = [str(column) for column in data["columns"]]
        rows = spread(pd.DataFrame(data["X"].astype(float), columns=columns), data["step"])
        return rows, None if label is None else data[label]


def _csv(path: str, steps: dict[str, float], label: str) -> tuple[pd.DataFrame, pd.Series]:
    table = pd.read_csv(FOLDER / path).dropna()
    return spread(table[list(steps)], np.array(list(steps.values()))), table[label]


def magic(ordinary: str, odd: str) -> Pair:
    x, label = _array("magic_gamma", "label")
    return x[label == ordinary], x[label == odd]


def gas_turbine() -> Pair:
    x, year = _array("gas_turbine", "year")
    return x[year <= 2013], x[year == 2015]


def galaxies() -> Pair:
    x, _ = _array("galaxy_photometry")
    redshift = x.pop("redshift")
    return x[redshift < 1], x[redshift > 1.5]


def proteins() -> Pair:
    x, _ = _array("casp_protein")
    deviation = x.pop("RMSD")
    return x[deviation < 5], x[deviation > 15]


def of_csv(path: str, steps: dict[str, float], label: str, ordinary: str, odd: str) -> Pair:
    x, found = _csv(path, steps, label)
    return x[found == ordinary], x[found == odd]


def breast_cancer() -> Pair:
    table = load_breast_cancer(as_frame=True)
    return table.data[table.target == 1], table.data[table.target == 0]


def digits() -> Pair:
    table = load_digits()
    eights = table.target == 8
    x = PCA(COMPONENTS, random_state=0).fit(table.data[eights]).transform(table.data)
    frame = pd.DataFrame(x).add_prefix("component ")
    return frame[eights], frame[~eights]


BEIJING_FILE = "beijing_pm25/data.csv.gz"
HOUSING_FILE = "california_housing/california_housing_mixed.csv.gz"
TABLES: dict[str, Callable[[], Pair]] = {
    "gamma rays, hadrons odd": lambda: magic("g", "h"),
    "hadrons, gamma rays odd": lambda: magic("h", "g"),
    "gas turbine to 2013, 2015 odd": gas_turbine,
    "ideal cuts, fair ones odd": lambda: of_csv(
        "diamonds/data.csv.gz", DIAMONDS, "cut", "Ideal", "Fair"
    ),
    "wind from SE, NW odd": lambda: of_csv(BEIJING_FILE, BEIJING, "cbwd", "SE", "NW"),
    "inland, near the ocean odd": lambda: of_csv(
        HOUSING_FILE, HOUSING, "ocean_proximity", "INLAND", "NEAR OCEAN"
    ),
    "near galaxies, far ones odd": galaxies,
    "folds near the native, far ones odd": proteins,
    "benign, malignant odd": breast_cancer,
    "eights, other digits odd": digits,
}
WITH_SCIKIT_LEARN = ("benign, malignant odd", "eights, other digits odd")
