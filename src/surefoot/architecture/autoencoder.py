"""The multi-scale autoencoder of networks: one embedding, a decoder for every depth."""

from __future__ import annotations

import time
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from surefoot._numerics.arguments import checked
from surefoot._numerics.checks import check_choice, check_number
from surefoot._numerics.seeds import generator_for, seed_for
from surefoot.architecture._autoencoder.certified import Certified
from surefoot.architecture._autoencoder.conv import ConvDecoder, ConvEncoder
from surefoot.architecture._autoencoder.decoders import ChunkedDecoder, MLPDecoder
from surefoot.architecture._autoencoder.encoders import MatrixEncoder, ProbeEncoder
from surefoot.architecture._autoencoder.entries import GATES, Entries, Gate, to_nets
from surefoot.architecture._autoencoder.functions import outputs_of
from surefoot.architecture._autoencoder.loss import LOSSES, Loss
from surefoot.architecture._autoencoder.saved import Saved
from surefoot.architecture._autoencoder.training import RECIPES, Callback, Recipe, train
from surefoot.architecture._budget import Budget, Clock
from surefoot.architecture._nets.matrix import Layout
from surefoot.architecture.net_batch import NetBatch
from surefoot.architecture.space import MLPSpace
from surefoot.record import Record

PROBES = 256
Encoder = Literal["probe", "matrix", "conv"]
Decoder = Literal["mlp", "chunked", "conv"]
ENCODERS: tuple[Encoder, ...] = ("probe", "matrix", "conv")
DECODERS: tuple[Decoder, ...] = ("mlp", "chunked", "conv")


@checked
class NetworkAutoencoder(Certified, Saved, nn.Module):
    """Embeds the networks of a space as functions, and decodes every embedding at every depth.

    Parameters
    ----------
    space : MLPSpace
        The networks.
    z_dim : int
        Numbers of an embedding.
    encoder : "probe", "matrix" or "conv"
        "probe" reads outputs at 256 fixed inputs, so equal functions have one embedding and any callable
        can be embedded; "matrix" reads the entries; "conv" is the paper's, and reads `to_matrix`.
    decoder : "mlp", "chunked" or "conv"
        "mlp" gives all entries at once; "chunked" blocks of them, for W > 32; "conv" is the paper's.
    gate : "ste", "hard" or "soft"
        Gradient through the gates: straight-through, none (the paper's), or gates between 0 and 1.
    winner_weight, all_weight : float
        Of the best decoder's error and of the mean over decoders; (1, 0) is the paper's, with which
        decoders collapse.
    loss : "normalised" or "plain"
        Squared errors over the variance of the outputs, or as they are (the paper's).
    seed : int
        Of the initial parameters and of the probe inputs.

    Attributes
    ----------
    record
        The loss of the training, and facts of it.

    Raises
    ------
    ValueError
        An argument is not allowed; the message names it.

    References
    ----------
    arXiv 2410.08339, sections on the autoencoder; shapes of "conv" from the authors' code.
    """

    def __init__(
        self,
        space: MLPSpace,
        z_dim: int = 128,
        encoder: Encoder = "probe",
        decoder: Decoder = "mlp",
        gate: Gate = "ste",
        winner_weight: float = 1.0,
        all_weight: float = 0.25,
        loss: Loss = "normalised",
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not isinstance(space, MLPSpace):
            raise ValueError(f"space must be an MLPSpace, got {space!r}")
        self.space = space
        self.z_dim = check_number("z_dim", z_dim, least=1, whole=True)
        self.encoder_kind: Encoder = check_choice("encoder", encoder, ENCODERS)
        self.decoder_kind: Decoder = check_choice("decoder", decoder, DECODERS)
        self.gate: Gate = check_choice("gate", gate, GATES)
        self.winner_weight = check_number("winner_weight", winner_weight, least=0)
        self.all_weight = check_number("all_weight", all_weight, least=0)
        if self.winner_weight + self.all_weight == 0:
            raise ValueError("winner_weight and all_weight must not both be 0, got 0 and 0")
        self.loss: Loss = check_choice("loss", loss, LOSSES)
        self.seed = check_number("seed", seed, whole=True)
        # Neurons are exchangeable: a decoder that knows their place learns one order of them.
        self.sort_neurons = decoder == "chunked"
        self.record = Record()
        plain = space.bias_scale == 0 and len(space.activations) == 1 and not space.standardise
        layout: Layout = "paper" if plain else "full"
        scale = (space.weight_scale, space.bias_scale or 1.0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_for("surefoot.architecture parameters", self.seed))
            self.encoder: nn.Module
            if encoder == "probe":
                drawn = generator_for("surefoot.architecture probes", self.seed)
                self.encoder = ProbeEncoder(space.sample_inputs(PROBES, drawn), space.n_out, z_dim)
            elif encoder == "matrix":
                self.encoder = MatrixEncoder(space, scale, z_dim)
            else:
                self.encoder = ConvEncoder(space, layout, z_dim)
            self.decoder: nn.Module
            if decoder == "conv":
                self.decoder = ConvDecoder(space, layout, z_dim)
            else:
                kind = MLPDecoder if decoder == "mlp" else ChunkedDecoder
                self.decoder = kind(space, scale, z_dim)

    @classmethod
    def paper(cls, activation: str = "sigmoid", seed: int = 0) -> NetworkAutoencoder:
        """The system of arXiv 2410.08339 as its authors' code has it; `fit` it with recipe="paper".

        Parameters
        ----------
        activation : "sigmoid", "leaky_relu_0.1" or "identity"
            One for all neurons.
        seed : int
            Of the initial parameters.
        """
        return cls(MLPSpace.paper(activation), 128, "conv", "conv", "hard", 1.0, 0.0, "plain", seed)

    def embed(self, nets: NetBatch) -> Float[Tensor, "B z"]:
        """Embeddings in the precision of the networks, with gradients: what `fit` trains."""
        return self.encoder(nets)  # type: ignore[no-any-return]

    def entries(self, z: Float[Tensor, "B z"], depth: int) -> Entries:
        """What the decoder of one depth gives before gates are thresholded and activations chosen.

        Parameters
        ----------
        z : (B, z) tensor
            Embeddings.
        depth : int
            Hidden layers, 1..max_depth.
        """
        depth = check_number("depth", depth, least=1, most=self.space.max_depth, whole=True)
        if z.ndim != 2 or z.shape[-1] != self.z_dim:
            raise ValueError(f"z must be (B, {self.z_dim}), got {tuple(z.shape)}")
        return self.decoder(z, depth)  # type: ignore[no-any-return]

    def decode_soft(self, z: Float[Tensor, "B z"], depth: int) -> NetBatch:
        """`decode` as `fit` uses it."""
        return self.decode(z, depth)

    def decode(
        self, z: Float[Tensor, "B z"], depth: int, temperature: float = 0.05, hard: bool = False
    ) -> NetBatch:
        """The networks of one depth that embeddings stand for.

        Parameters
        ----------
        z : (B, z) tensor
            Embeddings; gradients flow back to them.
        depth : int
            Hidden layers, 1..max_depth.
        temperature : float
            Of the softmax over activations; below 1/2 they are one-hot with the gradient of a softmax.
        hard : bool
            Gates in {0, 1} and one-hot activations, so that `forward` equals `to_sequential`. At least one
            neuron a layer is on.

        Raises
        ------
        ValueError
            z has another shape, depth is out of range, temperature is not positive.
        """
        temperature = check_number("temperature", temperature, above=0)
        return to_nets(
            self.entries(z, depth), self.space, gate=self.gate, temperature=temperature, hard=hard
        )

    def forward(self, nets: NetBatch) -> list[NetBatch]:
        """Every network, through its embedding, at every depth."""
        z = self.embed(nets)
        return [self.decode_soft(z, d) for d in range(1, self.space.max_depth + 1)]

    @torch.no_grad()
    def encode(self, nets: Any) -> Float[Tensor, "B z"]:
        """Embeddings of networks, or of anything that computes a function.

        Parameters
        ----------
        nets : NetBatch, Module, callable or estimator
            With "probe" any function of n_in inputs and n_out outputs: a module gets a tensor, an estimator's
            `predict` and any other callable a float64 array (256, n_in). With "matrix" and "conv" networks
            of the space only. The outputs that it learnt from have mean 0 and standard deviation 1.

        Returns
        -------
        (B, z) tensor
            B is 1 but for a NetBatch. "probe" evaluates in float64.

        Raises
        ------
        ValueError
            It does not fit the space, or gives numbers that are not finite.
        TypeError
            It is nothing of these.
        """
        if isinstance(self.encoder, ProbeEncoder):
            if isinstance(nets, NetBatch):
                return self.encoder(nets.to(torch.float64))  # type: ignore[no-any-return]
            return self.encoder.of_outputs(
                outputs_of(nets, self.encoder.probes, self.space.n_out)[None]
            )
        if isinstance(nets, nn.Module):
            nets = NetBatch.from_sequential(nets, self.space).to(torch.float32)
        if not isinstance(nets, NetBatch):
            raise TypeError(
                f'encoder="{self.encoder_kind}" reads the entries of networks of its space, '
                f'got {type(nets).__name__}; encoder="probe" embeds any callable'
            )
        if self.sort_neurons:
            nets = nets.canonical()
        return self.embed(nets)

    def fit(
        self,
        seconds: float | None = None,
        steps: int | None = None,
        seed: int = 0,
        callback: Callback | None = None,
        recipe: Recipe = "default",
        clock: Clock = time.perf_counter,
    ) -> Self:
        """Train on networks of the space that are drawn afresh at every step.

        Parameters
        ----------
        seconds : float, optional
            Wall-clock time; the result then depends on the machine.
        steps : int, optional
            Adam's steps, in place of `seconds`: the result depends on `seed` and nothing else.
        seed : int
            Of networks and inputs.
        callback : callable, optional
            Called as callback(step, loss); training stops if it returns True.
        recipe : "default" or "paper"
            Adam, 1e-3 to 1e-5 as a cosine, gradients clipped to norm 1, 32 networks a depth and 128 fresh
            inputs a step; or the authors' 1e-4 halved after every fifth of the run, 32 networks of 4 drawn
            depths on the grid of 10^D inputs.

        clock : callable
            What `seconds` are measured by; `time.process_time` makes them CPU time.

        Raises
        ------
        ValueError
            Both or neither of seconds and steps are given, or one that is not positive.
        ArithmeticError
            The loss is not finite; the parameters are those of the step before.
        """
        seed = check_number("seed", seed, whole=True)
        check_choice("recipe", recipe, RECIPES)
        budget = Budget(steps, seconds, clock)
        self._note(seed, recipe)
        train(
            self, list(self.parameters()), budget, seed=seed, recipe=recipe, callback=callback,
            record=self.record,
        )  # fmt: skip
        self.record.note(seed, steps=budget.done)
        return self

    def _note(self, seed: int, recipe: str) -> None:
        self.record.note(
            seed, recipe=recipe, encoder=self.encoder_kind, decoder=self.decoder_kind, gate=self.gate,
            winner_weight=self.winner_weight, all_weight=self.all_weight, loss=self.loss,
            standardise=self.space.standardise,
        )  # fmt: skip
