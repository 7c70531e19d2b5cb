"""A report about a flow, in one file: `write_report`.

    data                     the flow, the rows that judge it, their names
    sections                 the registry: one `Section` for each part of the page
    baselines, model_card    what sections say: a Gaussian and a mixture beside the flow; facts
    calculator               the form that scores a row, run by onnx.js and calculator.js
    figures, animation       what they show: pictures; particles and maps in motion
    scene, page              the compressed data of the motion; the file
    templates, page.css, flow.js     its markup, style and script

`cnf.plotting` draws the pictures, and plotly.js, which the page includes, the motion.
"""

from cnf.report.data import ReportData
from cnf.report.page import write_report
from cnf.report.sections import SECTIONS, Section
from cnf.report.templates import markup

__all__ = ["SECTIONS", "ReportData", "Section", "markup", "write_report"]
