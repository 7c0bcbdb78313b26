"""The arguments of what holds results, read off a result."""

import dataclasses


class Fields(dict):
    """Arguments of a result's constructor: any number may have been measured."""


def fields_of(instance):
    """The arguments with which a dataclass would make this instance of a result again."""
    return Fields(
        {f.name: getattr(instance, f.name) for f in dataclasses.fields(instance) if f.init}
    )
