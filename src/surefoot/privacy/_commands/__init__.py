"""The subcommands of `surefoot privacy`; `cli.py` puts them together."""
