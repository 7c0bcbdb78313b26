"""How the mean of c U becomes a step: as it is, averaged, or Adam's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from surefoot._numerics.checks import check_choice, check_number
from surefoot.zeroth_order._engine import checks
from surefoot.zeroth_order._engine.tensors import TrainedTensor


class Rule:
    """The plain step: along c U itself, without a state."""

    stateless = True

    def settings(self) -> dict[str, Any]:
        """What a log's header and a state hold of it, beside the settings that all share."""
        return {}

    def renewed(self, tensor: TrainedTensor, old_v: Tensor | None) -> None:
        """V of a tensor has changed."""

    def step(self, tensor: TrainedTensor, mean: Tensor) -> Tensor:
        """The step, in the factors of U (dense: of z), from the mean of c U."""
        return mean


class Momentum(Rule):
    """N <- beta N + (1 - beta) c U; the first step ever carries no (1 - beta), as in the authors' code."""

    stateless = False

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def step(self, tensor: TrainedTensor, mean: Tensor) -> Tensor:
        """N itself."""
        old = tensor.moments.get("n")
        new = mean if old is None else old.mul_(self.beta).add_(mean, alpha=1 - self.beta)
        tensor.moments["n"] = new
        return new


class Reprojection:
    """What becomes of N when V changes, so that N V^T stays near what it was (LOZO-M)."""

    def __init__(self, how: str) -> None:
        self.how = check_choice("reproject", how, checks.REPROJECTIONS)

    def __call__(self, tensor: TrainedTensor, old_v: Tensor | None) -> None:
        """Carry N of a tensor over from its old V."""
        n_factor = tensor.moments.get("n")
        if n_factor is None or tensor.v is None or old_v is None:
            return
        if old_v.shape != tensor.v.shape:
            # Another rank: there is nothing to project onto.
            del tensor.moments["n"]
            return
        # E ||N V_old^T V_new / n V_new^T||^2 is about r/n of the old energy.
        overlap = old_v.T @ tensor.v
        if self.how == "reset":
            tensor.moments["n"] = torch.zeros_like(n_factor)
        elif self.how == "paper":
            tensor.moments["n"] = n_factor @ overlap.to(n_factor) / tensor.n
        else:
            gram = tensor.v.T @ tensor.v
            solved = torch.linalg.solve(gram, (n_factor.to(gram) @ overlap).T).T
            tensor.moments["n"] = solved.to(n_factor)


class LowRank(Rule):
    """LOZO's plain step."""

    def __init__(self, reproject: Reprojection) -> None:
        self.reproject = reproject

    def settings(self) -> dict[str, Any]:
        """How the momentum would follow V; a log's header has it in any case."""
        return {"reproject": self.reproject.how}


class LowRankMomentum(Momentum):
    """LOZO-M: momentum whose factor follows V."""

    def __init__(self, beta: float, reproject: Reprojection) -> None:
        super().__init__(beta)
        self.reproject = reproject

    def settings(self) -> dict[str, Any]:
        """How the momentum follows V."""
        return {"reproject": self.reproject.how}

    def renewed(self, tensor: TrainedTensor, old_v: Tensor | None) -> None:
        """Carry the factor over."""
        self.reproject(tensor, old_v)


class Adam(Rule):
    """Adam's step on c z: two moments."""

    stateless = False

    def __init__(self, betas: tuple[float, float], adam_eps: float) -> None:
        self.betas = (
            check_number("betas[0]", betas[0], least=0, below=1),
            check_number("betas[1]", betas[1], least=0, below=1),
        )
        self.adam_eps = check_number("adam_eps", adam_eps, above=0)

    def settings(self) -> dict[str, Any]:
        """Its constants."""
        return {"betas": list(self.betas), "adam_eps": self.adam_eps}

    def step(self, tensor: TrainedTensor, mean: Tensor) -> Tensor:
        """m / (sqrt(v) + eps), both without bias."""
        if "m" not in tensor.moments:
            tensor.moments = {
                "m": torch.zeros_like(mean),
                "v": torch.zeros_like(mean),
                "count": torch.zeros((), dtype=torch.int64),
            }
        state = tensor.moments
        state["count"] += 1
        count = int(state["count"])
        b1, b2 = self.betas
        state["m"].lerp_(mean, 1 - b1)
        state["v"].mul_(b2).addcmul_(mean, mean, value=1 - b2)
        denominator = (state["v"] / (1 - b2**count)).sqrt_().add_(self.adam_eps)
        return state["m"] / denominator / (1 - b1**count)
