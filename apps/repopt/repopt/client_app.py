"""The ClientApp: a device that trains a plain network."""

from surefoot.reparam import repopt_client_app

app = repopt_client_app()
