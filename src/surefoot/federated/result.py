"""What comes back from a federation in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from surefoot._numerics.arguments import checked
from surefoot._showing import showing
from surefoot.certificate import Certificate
from surefoot.federated.guarantee import Theorem
from surefoot.federated.rounds import FederationHistory
from surefoot.record import Record


@showing
@checked
class FederatedState(dict[str, Tensor]):
    """The final global state, {name: tensor}, with how it came about.

    Parameters
    ----------
    state
        The arrays.
    history
        Its rounds.
    theorems
        What the task promises, each with how to measure it.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        history: FederationHistory,
        theorems: Sequence[Theorem] = (),
    ) -> None:
        super().__init__(state)
        self.history, self.theorems = history, tuple(theorems)
        history.theorems = self.theorems

    @property
    def record(self) -> Record:
        """Participants of each round, and what server and clients said of themselves."""
        return self.history.record

    def certificates(self, confidence: float = 0.99) -> list[Certificate]:
        """What is promised of the run, and what was measured."""
        return self.history.certificates(confidence)
