"""Results as tables and JSON."""

from onnx_subprune.evaluation.report.model import Report
from onnx_subprune.evaluation.report.sheet import Column, Part, Sheet, html_of, text_of
from onnx_subprune.evaluation.report.table import fidelity_table, group_share, inspection_table, report_table
from onnx_subprune.evaluation.report.values import Change, GroupReport, fidelity_dict

__all__ = [
    "Change",
    "Column",
    "GroupReport",
    "Part",
    "Report",
    "Sheet",
    "fidelity_dict",
    "fidelity_table",
    "group_share",
    "html_of",
    "inspection_table",
    "report_table",
    "text_of",
]
