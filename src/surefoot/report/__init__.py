"""Certificates and records as a static site that opens from disk, without server or network."""

from surefoot.report.figures import certificate_figure
from surefoot.report.fragment import certificate_html
from surefoot.report.site import write_run_page, write_site

__all__ = ["certificate_figure", "certificate_html", "write_run_page", "write_site"]
