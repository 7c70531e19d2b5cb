"""Pictures of angles and of points on a sphere."""

from __future__ import annotations

from matplotlib.figure import Figure
from torch import Tensor

from cnf.flows import CNF
from cnf.pictures.context import ROWS, PlotContext
from cnf.plotting.circles import rose, sphere_map
from cnf.transforms import Charts


def draw_roses(context: PlotContext) -> Figure:
    """Every angle around a circle: the data, if there are any, and samples.

    Raises:
        ValueError: for a model without angles.
    """
    charts = _charts(context)
    if not charts.angles:
        raise ValueError("rose: expected a column that is an angle, such as wind=angle:360")
    samples, count = context.samples(ROWS), len(charts.angles)
    page = Figure(figsize=(2.6 * count, 2.7), layout="compressed")
    for k, place in enumerate(charts.angles):
        tables = [rows[:, place] for rows in (context.data, samples) if rows is not None]
        rose(
            *tables,
            period=charts.periods[k].item(), start=charts.starts[k].item(),
            name=context.columns[place], ax=page.add_subplot(1, count, k + 1, projection="polar"),
        )  # fmt: skip
    return page


def draw_maps(context: PlotContext) -> Figure:
    """Every sphere on an equal-area map: the density where it is all that is modeled, the data, if
    there are any, and samples.

    Raises:
        ValueError: for a model without places.
    """
    charts = _charts(context)
    if not charts.spheres:
        raise ValueError("map: expected columns that are places, such as lon,lat=sphere")
    samples, count = context.samples(ROWS), len(charts.spheres)
    page = Figure(figsize=(5.2, 2.7 * count), layout="compressed")
    for k, pair in enumerate(charts.spheres):
        alone = charts.dim == 2

        def log_prob(places: Tensor, pair: tuple[int, int] = pair) -> Tensor:
            return context.flow.log_prob(places[:, list(pair)], context.context)

        names = " and ".join(context.columns[place] for place in pair)
        sphere_map(
            None if context.data is None else context.data[:, list(pair)],
            log_prob if alone else None,
            samples=None if alone else samples[:, list(pair)],
            name=names, ax=page.add_subplot(count, 1, k + 1, projection="mollweide"),
        )  # fmt: skip
    return page


def periods_of(flow: CNF) -> dict[int, float]:
    """The period of each column that is an angle or a longitude, by its place."""
    charts = flow.preprocess
    if not isinstance(charts, Charts):
        return {}
    places = [*charts.angles, *(longitude for longitude, _ in charts.spheres)]
    return dict(zip(places, charts.periods.tolist()))


def _charts(context: PlotContext) -> Charts:
    charts = context.flow.preprocess
    return charts if isinstance(charts, Charts) else Charts(context.flow.dim)
