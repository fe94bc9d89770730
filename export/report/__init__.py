"""The report of a bundle: one HTML page with plots that opens without a network.

``facts`` computes what is shown, ``figures`` draws it as SVG, ``page`` puts both into HTML.
"""

from export.report.facts import gather
from export.report.page import report_html

__all__ = ["gather", "report_html"]
