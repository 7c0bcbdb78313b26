"""Five clients with few digits each train a plain network that follows a multi-branch one, in one process.

Needs no extra: this is the loop that the Flower runtimes equal bit for bit. For real nodes and for a
simulation on Ray: `surefoot federate simulate apps/repopt`. About ten seconds on one core.
"""

import torch
from sklearn.datasets import load_digits

from surefoot.federated import ServerRule, federate, lda_partition
from surefoot.reparam import RepOptTask, federate_beside, repopt_vgg

digits = load_digits()
x, y = torch.tensor(digits.images[:, None] / 16), torch.tensor(digits.target)
CLIENTS, ROUNDS = 5, 8


def network(mode):
    """A smooth activation and float64, for which a number is promised; ReLU and float32 train as well."""
    return repopt_vgg(
        (1, 1), (8, 12), in_channels=1, mode=mode, strides=(1, 1, 2), activation="silu",
        dtype=torch.float64,
    )  # fmt: skip


task = RepOptTask(
    network,
    x[:500],
    y[:500],
    lda_partition(digits.target[:500], CLIENTS, alpha=1.0),
    test=(x[1400:], y[1400:]),
    lr=0.5,
    epochs=2,
    batch_size=16,
)

# With the branches beside it, which a real federation cannot have: does it follow them?
for rule, rounds in ((ServerRule("fedavg"), ROUNDS), (ServerRule("fedadam", lr=0.05), 1)):
    state = federate_beside(task, rounds, CLIENTS, fraction=0.8, rule=rule)
    print(f"{rule.rule}, {rounds} rounds: accuracy {task.evaluate(state)['accuracy']:.1%}")
    print(state.certificates()[0].summary(), "\n")


# A problem of one's own is three functions. What a client notes of itself goes into the record.
class Mean:
    """Each client pulls a number towards its own."""

    def initial(self, seed):
        """The state before the first round."""
        return {"w": torch.zeros(1)}

    def train(self, state, visit):
        """A new state, how many examples it stands for, and metrics."""
        visit.record.note(client="sgd", lr=0.5)
        return {"w": state["w"] + 0.5 * (visit.partition - state["w"])}, 10, {}

    def evaluate(self, state):
        """Nothing to evaluate on."""
        return {}


state = federate(Mean(), 8, CLIENTS)
print(f"mean of 0..9: {float(state['w']):.3f}")
for known in state.record.facts.values():
    print(" ", known)
for certificate in state.certificates():
    print(f"{certificate.verdict}: {certificate.name} ({certificate.reason})")
