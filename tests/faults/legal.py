"""Values that a generator calls bad and an argument takes with reason: one line for each kind of them."""

import re

# (callable, argument, label of the value) as regular expressions, and why it is right.
LEGAL = [
    (r".*", r"seed|block|server_round|random_state", r"zero|negative", "every whole number seeds"),
]


def legal(package, name, argument, label):
    """Why a value may be taken, "" where it may not."""
    for call, arg, kind, why in LEGAL:
        parts = ((call, f"{package}.{name}"), (arg, argument), (kind, label))
        if all(re.fullmatch(pattern, text) for pattern, text in parts):
            return why
    return ""
