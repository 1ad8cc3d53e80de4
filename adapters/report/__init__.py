"""The report of a comparison: a table, a CSV of every case, and a page to open in a browser."""

from adapters.report.page import html_page, write_html
from adapters.report.pictures import CasePicture, case_pictures
from adapters.report.tables import markdown, write_csv

__all__ = ["CasePicture", "case_pictures", "html_page", "markdown", "write_csv", "write_html"]
