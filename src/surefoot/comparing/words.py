"""What the command line says of `--against`, without what a comparison brings in."""

LAST = "last"
HELP = (
    "Compare with an earlier run of the study: its folder, or the word last for the newest one in --out. "
    "Seeds and size are those of that run unless said otherwise, and all other flags may differ."
)
