"""The ClientApp: a site that embeds its records, and uploads prototypes of them once."""

from surefoot.prototypes.doors.app import mpft_client_app

app = mpft_client_app()
