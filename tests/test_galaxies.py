"""A real table through the command line: 100,000 galaxies, redshift and six magnitudes."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cnf.cli import main

FOLDER = Path(os.environ.get("CNF_SHARED_DATA", "../shared/data")) / "galaxy_photometry"
BUDGET = os.environ.get("CNF_GALAXY_SECONDS", "600")


@pytest.mark.slow
@pytest.mark.skipif(
    not FOLDER.is_dir(), reason="the galaxy table is not here: set CNF_SHARED_DATA"
)
def test_galaxies_reach_a_density_that_no_mixture_does(tmp_path, capsys):
    data = np.load(FOLDER / "data.npz")
    columns = ["redshift", "u", "g", "r", "i", "z", "y"]
    parts = {
        name: data["X"][data[f"idx_{name}"]].astype(float) for name in ("train", "val", "test")
    }
    for name, rows in parts.items():
        pd.DataFrame(rows, columns=columns).to_csv(tmp_path / f"{name}.csv", index=False)
    model, scores = str(tmp_path / "galaxies.safetensors"), tmp_path / "scores.csv"

    arguments = ["--valid", str(tmp_path / "val.csv"), "--seconds", BUDGET, "--json"]
    assert main(["fit", str(tmp_path / "train.csv"), "-o", model, *arguments]) == 0
    capsys.readouterr()
    assert main(["score", model, str(tmp_path / "test.csv"), "-o", str(scores), "--json"]) == 0
    reported = json.loads(capsys.readouterr().out)

    # log p(x) = log p(x / s) − Σ log s: adding Σ log s gives the density of the standardized
    # columns.
    jacobian = np.log(parts["train"].std(0)).sum()
    log_prob = pd.read_csv(scores)["log_prob"].to_numpy()
    nll = -(log_prob + jacobian).mean()
    print(
        f"test NLL {nll:.3f} ± {log_prob.std() / len(log_prob) ** 0.5:.3f} nats, standardized units"
    )
    assert reported["mean_log_prob"] == pytest.approx(log_prob.mean(), abs=1e-6)
    assert nll < -7.3
