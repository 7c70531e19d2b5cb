"""Angles and places of a report, each in a picture of its own."""

from __future__ import annotations

from markupsafe import Markup
from matplotlib.figure import Figure

from cnf.plotting.circles import rose, sphere_map
from cnf.report.data import ReportData
from cnf.report.figures import picture
from cnf.report.templates import filled
from cnf.transforms import Charts


def render_circles(data: ReportData) -> str:
    """Roses of angles and equal-area maps of places; empty for a model without any."""
    charts = data.flow.preprocess
    if not isinstance(charts, Charts):
        return ""
    samples, rows = data.samples(len(data.rows)), data.rows.x
    pictures = []
    for k, place in enumerate(charts.angles):
        page = Figure(figsize=(2.6, 2.6), layout="compressed")
        rose(
            rows[:, place], samples[:, place],
            period=charts.periods[k].item(), start=charts.starts[k].item(),
            name=data.names[place], ax=page.add_subplot(projection="polar"),
        )  # fmt: skip
        pictures.append(_picture(page, f"rose{place}", f"Rose of {data.names[place]}"))
    for longitude, latitude in charts.spheres:
        page = Figure(figsize=(5.2, 2.7), layout="compressed")
        pair = [longitude, latitude]
        name = " and ".join(data.names[place] for place in pair)
        ax = page.add_subplot(projection="mollweide")
        sphere_map(rows[:, pair], samples=samples[:, pair], name=name, ax=ax)
        pictures.append(_picture(page, f"map{longitude}", f"Map of {name}"))
    return filled("columns.html", pictures=pictures)


def _picture(page: Figure, name: str, description: str) -> Markup:
    return picture(page, name, f"{description}: data and samples")
