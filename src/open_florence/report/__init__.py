"""What a person sees: `draw` puts annotations on a picture, `write_report` turns an annotated folder into a page."""

from open_florence.report.drawing import draw
from open_florence.report.page import write_report

__all__ = ["draw", "write_report"]
