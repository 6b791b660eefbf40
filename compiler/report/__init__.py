"""Comparisons as people read them: terminal tables, JSON, one self-contained HTML page."""

from burnish.compiler.report.files import write_html, write_json, write_report
from burnish.compiler.report.tables import (
    comparison_table,
    print_comparison,
    print_tables,
    render_table,
    waterfall_table,
)

__all__ = [
    "comparison_table",
    "print_comparison",
    "print_tables",
    "render_table",
    "waterfall_table",
    "write_html",
    "write_json",
    "write_report",
]
