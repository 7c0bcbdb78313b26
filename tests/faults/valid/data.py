"""Valid calls of `surefoot.data`."""

from faults.valid.fields import fields_of
from surefoot import data


def calls():
    return {
        "load": lambda: {"name": "iris", "path": None},
        "fetch": lambda: {"name": "iris", "progress": None},
        "verify": lambda: {"name": "iris"},
        "Table": lambda: fields_of(data.load("iris")),
        "Entry": lambda: fields_of(data.available()[0]),
        "TrialSets": lambda: {"files": {}},
    }
