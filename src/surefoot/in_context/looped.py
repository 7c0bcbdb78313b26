"""The looped transformer: one linear-attention layer applied L times to a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.transforms import in_full
from surefoot.in_context._attention import read_attention
from surefoot.in_context._covariance import covariance
from surefoot.in_context._forms import feature, gram, literal
from surefoot.in_context._prompt_shapes import check_examples, check_prompt

Form = Literal["auto", "literal", "feature", "gram"]


@checked
class LoopedTransformer(nn.Module):
    """L loops of linear self-attention over a prompt of n examples and a query.

    Z <- Z - (1/n) P Z M (Z' Q Z) with Q = [[A, 0], [0, 0]] and P = [[0, 0], [u', 1]]; the prediction is
    -[Z_L]_{d+1, n+1}. With u = 0 these are exactly L steps of gradient descent on |X'w - y|^2 / 2n from
    w = 0, preconditioned by A'.

    Source: arXiv 2410.08292, section 2; sign and 1/n are fixed here (arXiv 2306.00297 adds: its A is -A).

    Parameters
    ----------
    d
        Features.
    loops
        How often the layer is applied; 0 predicts 0.
    tied
        One A for all loops; otherwise each has its own, as in arXiv 2306.00297.
    train_u
        Whether u is a parameter; otherwise it is a buffer of zeros.
    sigma
        The covariance of the x_i, for reports; it never enters a prediction.
    form
        "auto": "feature" where d <= n, else "gram". "literal" evaluates the attention itself, in O(n^2)
        memory. All give the same numbers to rounding.
    dtype
        Of the parameters; by default torch's own default.
    init_std
        Standard deviation of the entries of A at the start. None: 0 where tied, 0.1 where not: layers
        that start equal have equal gradients and stay equal.
    seed
        Of that start.

    Attributes
    ----------
    A
        (d, d), or (loops, d, d) where not tied: A[0] is applied first.
    u
        (d,).

    Raises
    ------
    ValueError
        An argument is out of range; in a call, of a shape that does not fit or of a number that is not
        finite. Compiled or under torch.func, the last is not looked for: NaN goes in and comes out.
        Autocast changes nothing: a loop in 16 bits would add up their rounding.
    """

    A: nn.Parameter
    u: Tensor

    def __init__(
        self,
        d: int,
        loops: int,
        *,
        tied: bool = True,
        train_u: bool = False,
        sigma: Float[Tensor, "d d"] | Float[np.ndarray, "d d"] | None = None,
        form: Form = "auto",
        dtype: torch.dtype | None = None,
        init_std: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.d = check_number("d", d, least=1, whole=True)
        self.loops = check_number("loops", loops, least=0, whole=True)
        self.tied = check_choice("tied", tied, (True, False))
        self.form: Form = check_choice("form", form, ("auto", "literal", "feature", "gram"))
        self.train_u = check_choice("train_u", train_u, (True, False))
        self.sigma: Float64[Tensor, "d d"] | None = (
            None if sigma is None else covariance("sigma", sigma, self.d)
        )
        kind = torch.get_default_dtype() if dtype is None else dtype
        shape = (self.d, self.d) if self.tied else (self.loops, self.d, self.d)
        self.A = nn.Parameter(torch.zeros(shape, dtype=kind))
        u = torch.zeros(self.d, dtype=kind)
        if self.train_u:
            self.u = nn.Parameter(u)
        else:
            self.register_buffer("u", u)
        self.reset_parameters(init_std, seed)

    def reset_parameters(self, init_std: float | None = None, seed: int = 0) -> None:
        """Start again: A normal with this standard deviation, u zero.

        Parameters
        ----------
        init_std, seed
            As in the constructor.
        """
        std = (0.0 if self.tied else 0.1) if init_std is None else init_std
        std = check_number("init_std", std, least=0)
        generator = torch.Generator().manual_seed(check_number("seed", seed, least=0, whole=True))
        start = torch.randn(self.A.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            self.A.copy_(std * start)
            self.u.zero_()

    @classmethod
    def from_attention(
        cls,
        W_q: Float[Tensor, "head tokens"],
        W_k: Float[Tensor, "head tokens"],
        W_v: Float[Tensor, "value tokens"],
        W_o: Float[Tensor, "tokens value"] | None = None,
        *,
        loops: int = 1,
        residual: Literal["subtract", "add"] = "subtract",
        tol: float = 1e-6,
    ) -> LoopedTransformer:
        """The model that a linear-attention layer over tokens (x; y) is, if it is one.

        Parameters
        ----------
        W_q, W_k, W_v, W_o
            Matrices that act from the left on tokens of d + 1 numbers, as the weights of `torch.nn.Linear`
            do; without W_o the values are tokens. Q = W_k'W_q and P = W_o W_v.
        loops
            How often the layer is applied.
        residual
            "subtract": Z - (1/n) P Z M Z'QZ, as here; "add": Z + (1/n) ..., as in arXiv 2306.00297.
        tol
            How much of the norm of P and of Q may lie outside the blocks that the model has.

        Returns
        -------
        LoopedTransformer
            Whose predictions are the layer's; it trains u.

        Raises
        ------
        ValueError
            The shapes do not fit, or P or Q has more than `tol` elsewhere: then it is another model.
        """
        A, u = read_attention(W_q, W_k, W_v, W_o, residual=residual, tol=tol)
        model = cls(A.shape[0], loops, train_u=True, dtype=A.dtype)
        with torch.no_grad():
            model.A.copy_(A)
            model.u.copy_(u)
        return model

    def forward(
        self,
        X: Float[Tensor, "batch d n"],
        y: Float[Tensor, "batch n"],
        xq: Float[Tensor, "batch d"],
        *,
        loops: int | None = None,
    ) -> Float[Tensor, " batch"]:
        """The predicted label of each query.

        Parameters
        ----------
        X, y, xq
            The prompts: examples as columns, their labels, the queries.
        loops
            Another number than the model's; at most that where the layers are not tied.

        Raises
        ------
        ValueError
            A shape does not fit, a number is not finite, or `loops` is out of range.
        """
        check_prompt(X, y, xq, self.d, self.A.dtype)
        layers = self.layers(loops)
        if not layers or X.shape[-1] == 0:
            return torch.zeros_like(xq[:, 0])
        form = {"literal": literal, "feature": feature, "gram": gram}[self._form(X)]
        with in_full(X):
            found: Tensor = form.predict(X, y, xq, layers, self.u)
        return found

    def weights(
        self,
        X: Float[Tensor, "batch d n"],
        y: Float[Tensor, "batch n"],
        *,
        loops: int | None = None,
        return_all: bool = False,
    ) -> Float[Tensor, "batch d"] | Float[Tensor, "batch steps d"]:
        """The weights w_L of the linear rule that the model applies to the query.

        Parameters
        ----------
        X, y, loops
            As in a call.
        return_all
            w_0 = 0, w_1, ..., w_L in one (batch, L + 1, d) instead.

        Raises
        ------
        ValueError
            As a call does.
        """
        check_examples(X, y, self.d, self.A.dtype)
        layers = self.layers(loops)
        if X.shape[-1] == 0:
            path = [X.new_zeros(X.shape[:-1])] * (len(layers) + 1)
        else:
            form = gram if self._form(X) == "gram" else feature
            with in_full(X):
                path = form.weights(X, y, layers, self.u)
        return torch.stack(path, 1) if return_all else path[-1]

    def layers(self, loops: int | None = None) -> Sequence[Float[Tensor, "d d"]]:
        """The matrices A in the order in which they are applied; tied ones are one tensor, repeated."""
        count = self.loops if loops is None else check_number("loops", loops, least=0, whole=True)
        if self.tied:
            return [self.A] * count
        if count > self.loops:
            raise ValueError(
                f"loops must be at most {self.loops}, the number of layers, as they are not tied, got {count}"
            )
        return list(self.A[:count].unbind(0))

    def _form(self, X: Tensor) -> str:
        if self.form != "auto":
            return self.form
        return "feature" if self.d <= X.shape[-1] else "gram"

    def extra_repr(self) -> str:
        """The settings, for `print`."""
        return f"d={self.d}, loops={self.loops}, tied={self.tied}, form={self.form!r}"
