"""A page about a flow, in one file: `write_report`.

    subject                   the flow, the rows it is judged by, their names
    baselines, calibration    what it is measured against: a Gaussian, a mixture, uniform ranks
    model_card, figures, animation   what the page shows: words, pictures, particles and maps that move
    page                      the file; page.html, page.css and flow.js are its frame, its look and its script

`cnf.plotting` draws what stands still and plotly.js, which the page carries in itself, what moves.
"""

from cnf.report.page import write_report

__all__ = ["write_report"]
