"""What does my DP-SGD leak? Plan it, train it with Opacus, read back what was proven, and audit it.

Needs the extra: pip install 'surefoot[privacy]'. About ten seconds on one core.
"""

import warnings

import torch
from opacus import PrivacyEngine
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from surefoot import Record, privacy

DELTA, SIGMA, BATCH, EPOCHS, CANARIES = 1e-5, 2.0, 180, 5, 400
digits = load_digits()
x = torch.tensor(digits.data[:1437] / 16, dtype=torch.float32)
y = torch.tensor(digits.target[:1437])


class Training:
    """Softmax regression by Opacus; an audit calls it with the canaries that take part, and a seed."""

    def __init__(self):
        self.record = Record()  # the audit takes the facts that Opacus leaves here

    def __call__(self, include, seed):
        """Train, and return the last model."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Opacus speaks of secure randomness and of its hooks
            return self._train(include, seed)

    def _train(self, include, seed):
        torch.manual_seed(seed)
        model = nn.Linear(64, 10)
        nn.init.zeros_(model.weight)  # every training of an audit starts at the same place
        nn.init.zeros_(model.bias)
        self.engine = PrivacyEngine(accountant=privacy.register_opacus())
        net, optimizer, self.loader = self.engine.make_private(
            module=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
            data_loader=DataLoader(TensorDataset(x, y), batch_size=BATCH),
            noise_multiplier=SIGMA,
            max_grad_norm=1.0,
        )
        privacy.attach_gradient_canaries(
            optimizer, canaries, include, sample_rate=1 / len(self.loader), seed=seed + 1
        )
        for _ in range(EPOCHS):
            for inputs, labels in self.loader:
                optimizer.zero_grad()
                nn.functional.cross_entropy(net(inputs), labels).backward()
                optimizer.step()
        privacy.note_training(self.record, None, self.engine, data_loader=self.loader)
        return model  # nothing but the last model leaves


canaries = privacy.canaries.dirac(nn.Linear(64, 10), CANARIES, seed=0)
steps = EPOCHS * -(-len(x) // BATCH)

print("Before training: proven, and plausible if only the last model leaves")
print(privacy.compare(SIGMA, 1 / 8, steps, DELTA))

training = Training()
result = privacy.audit.one_run(
    training, canaries, m=CANARIES, delta=DELTA, shadow=2, seed=0, claimed=(SIGMA, 1 / 8, steps)
)
print("\nAfter training: proven, plausible and audited")
print(privacy.from_opacus(training.engine, DELTA, data_loader=training.loader, audit=result))
for certificate in result.certificates():
    print()
    print(certificate.summary())
