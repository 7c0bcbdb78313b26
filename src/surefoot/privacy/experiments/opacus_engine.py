"""A real Opacus training with canaries injected before its noise, to be audited in one run."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from surefoot.privacy.canaries import attach_gradient_canaries, dirac_coordinates
from surefoot.privacy.doors.opacus import note_training, privacy_engine
from surefoot.record import Record


@dataclass
class OpacusTraining:
    """An MLP trained by PrivacyEngine from one fixed start; `accountants` keeps what each run spent."""

    x: Float[Tensor, "n d"]
    y: Int[Tensor, " n"]
    m: int
    noise_multiplier: float
    batch_size: int
    epochs: int
    lr: float = 1.0
    hidden: int = 64
    accountant: str = "prv"
    models: list[nn.Module] = field(default_factory=list)
    accountants: list[Any] = field(default_factory=list)
    record: Record = field(default_factory=Record)
    """What the engine's accountant, optimiser and loader say of the trainings so far."""

    def __post_init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.start = self._network().state_dict()
        size = sum(v.numel() for v in self.start.values())
        self.coordinates = dirac_coordinates(size, self.m, seed=1)
        self.size = size

    def _network(self) -> nn.Module:
        return nn.Sequential(
            nn.Linear(self.x.shape[1], self.hidden),
            nn.Tanh(),
            nn.Linear(self.hidden, int(self.y.max()) + 1),
        )

    @property
    def sample_rate(self) -> float:
        """q: Opacus takes 1 / (number of batches)."""
        return 1 / -(-len(self.x) // self.batch_size)

    @property
    def steps(self) -> int:
        """T."""
        return self.epochs * -(-len(self.x) // self.batch_size)

    def __call__(self, include: Bool[Tensor, " m"], seed: int) -> Float[np.ndarray, " m"]:
        """Train with the included canaries; the score of each is how far it moved its coordinate."""
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            # Opacus speaks of secure randomness, of which an experiment has no need.
            warnings.simplefilter("ignore")
            # Its Poisson sampler draws from the global generator, which is put back afterwards.
            torch.manual_seed(seed)
            return self._train(privacy_engine(self.accountant), include, seed)

    def _train(self, engine: Any, include: Tensor, seed: int) -> Float[np.ndarray, " m"]:
        model = self._network()
        model.load_state_dict(self.start)
        loader = DataLoader(TensorDataset(self.x, self.y), batch_size=self.batch_size)
        net, optimizer, batches = engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=self.lr),
            data_loader=loader,
            noise_multiplier=self.noise_multiplier,
            max_grad_norm=1.0,
            noise_generator=torch.Generator().manual_seed(seed + 1),
        )
        index = torch.stack([torch.arange(self.m), self.coordinates])
        vectors = torch.sparse_coo_tensor(
            index, torch.ones(self.m), (self.m, self.size), check_invariants=True
        )
        attach_gradient_canaries(
            optimizer, vectors, include, sample_rate=self.sample_rate, seed=seed + 2
        )
        for _ in range(self.epochs):
            for a, b in batches:
                optimizer.zero_grad()
                loss: Any = nn.functional.cross_entropy(net(a), b)
                loss.backward()
                optimizer.step()
        self.models.append(model)
        self.accountants.append(engine.accountant)
        note_training(self.record, None, engine, optimizer=optimizer, data_loader=batches)
        # The scores are of the last model. One learning rate throughout: nothing above changes it.
        self.record.note(releases="last", lr=self.lr)
        before = torch.cat([p.flatten() for p in self.start.values()])
        after = torch.cat([p.detach().flatten() for p in model.parameters()])
        return (before - after)[self.coordinates].double().numpy()

    def accuracy(self, x: Tensor, y: Tensor) -> float:
        """Of the last model."""
        with torch.no_grad():
            return float((self.models[-1](x).argmax(dim=1) == y).double().mean())
