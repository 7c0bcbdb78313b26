"""The ServerApp: one upload of prototypes from every site, one adapter for all."""

from surefoot.prototypes.doors.app import mpft_server_app

app = mpft_server_app()
