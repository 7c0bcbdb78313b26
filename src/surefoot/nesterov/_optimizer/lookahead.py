"""Two points in one tensor: the parameters hold y_n, where the gradient is taken; promises are about x_n."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


class LookAhead(torch.optim.Optimizer):
    """An optimizer whose parameters hold y_n and that can show x_n.

    Which of the two is loaded stands in every group as `point`, so that a checkpoint says it.
    """

    def _shift(self, sign: int) -> None:
        """Add sign * (x_n - y_n) to the parameters."""
        raise NotImplementedError

    def _rest(self) -> None:
        """Set the velocity to 0."""
        raise NotImplementedError

    @property
    def holds_iterate(self) -> bool:
        """Whether the parameters hold x_n, not y_n."""
        return any(group.get("point") == "x" for group in self.param_groups)

    def _name(self, point: str) -> None:
        for group in self.param_groups:
            group["point"] = point

    def _refuse_iterate(self) -> None:
        if self.holds_iterate:
            raise RuntimeError(
                "step() inside iterate(): the parameters hold x_n; leave the block first, or call "
                "resume() before the next gradient if this state was saved inside one"
            )

    @contextmanager
    def iterate(self) -> Iterator[None]:
        """The parameters temporarily hold the iterate x_n, which the guarantee is about.

        On leaving, y_n is restored bit for bit from a copy. Inside another such block, or where x_n is
        loaded already, nothing moves. A step inside raises RuntimeError. A state saved inside, with
        the model beside it, is taken up again by `resume`.
        """
        if self.holds_iterate:
            yield
            return
        saved = [(p, p.detach().clone()) for g in self.param_groups for p in g["params"]]
        try:
            self._shift(1)
            self._name("x")
            yield
        finally:
            self._name("y")
            with torch.no_grad():
                for p, y in saved:
                    p.copy_(y)

    def finalize(self) -> None:
        """Leave x_n in the parameters and start from rest, as at the end of training."""
        if not self.holds_iterate:
            self._shift(1)
        self._rest()
        self._name("y")

    def resume(self) -> None:
        """Go on from a checkpoint that was written inside `iterate`: y_n takes the place of x_n.

        Load model and optimizer first. y_n is recomputed, so equal to the one that was left up to
        rounding; a checkpoint written outside `iterate` continues bit for bit and needs no `resume`.
        """
        if self.holds_iterate:
            self._shift(-1)
            self._name("y")
