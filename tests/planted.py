"""A module with a mistake in it, which a test must see."""

import types
from pathlib import Path


def planted(module, right, wrong):
    """The module from its source, where `right` stands once, and `wrong` in its place"""
    source, code = Path(module.__file__).read_text(), types.ModuleType("planted")
    code.__package__ = module.__package__
    assert source.count(right) == 1
    exec(compile(source.replace(right, wrong), "planted", "exec"), code.__dict__)
    return code
