"""What a person is told points at the line that they wrote."""

import types
import warnings

from torch import nn

INNER = """
from surefoot.errors import warn
class Inner(nn.Module):
    def forward(self, depth):
        return warn("told") if not depth else self(depth - 1)
"""


def test_a_warning_points_at_the_callers_line_through_any_depth_of_torch():
    inner = types.ModuleType("surefoot.inner")
    inner.nn = nn
    exec(INNER, inner.__dict__)
    found = []
    for depth in (0, 1, 5):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            inner.Inner()(depth)
        assert [str(w.message) for w in caught] == ["told"]
        found.append((caught[0].filename, caught[0].lineno))
    assert len(set(found)) == 1
    filename, line = found[0]
    assert filename == __file__
    with open(__file__) as f:
        assert "inner.Inner()(depth)" in f.readlines()[line - 1]
