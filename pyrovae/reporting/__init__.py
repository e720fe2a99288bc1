"""Reports: one self-contained HTML page on a run, or on several runs side by side."""

from pyrovae.reporting.report import report

__all__ = ["report"]
