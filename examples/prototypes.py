"""Three clinics, three scanners, the same labels: one upload each, one adapter back; then with privacy."""

import torch
from sklearn.datasets import load_digits

from surefoot.prototypes import (
    GaussianRelease,
    Ledger,
    ZeroShotHead,
    accuracy_matrix,
    adapt_locally,
    audit_membership,
    extract_prototypes,
    train_global_adapter,
)

# Embeddings of a frozen encoder; here pixels, which the second and the third scanner mirror.
x, y = (torch.as_tensor(v) for v in load_digits(return_X_y=True))
images = x.float().reshape(-1, 8, 8) / 16
scanners = (lambda v: v, lambda v: v.flip(2), lambda v: v.flip(1))
public, own = slice(0, 300), [slice(300 + 480 * i, 780 + 480 * i) for i in range(3)]


def embedded(rows, change):
    """What a clinic's encoder makes of its images, and the labels."""
    return torch.nn.functional.normalize(change(images[rows]).flatten(1), dim=1), y[rows]


clinics = [embedded(rows, change) for rows, change in zip(own, scanners, strict=True)]
train = [(z[:320], labels[:320]) for z, labels in clinics]
test = [(z[320:], labels[320:]) for z, labels in clinics]
z, labels = embedded(public, scanners[0])
head = ZeroShotHead(torch.stack([z[labels == c].mean(0) for c in range(10)]))


def shown(name, model):
    """One line of percent right, clinic by clinic."""
    found = accuracy_matrix(model, test, head).values[0]
    print(f"{name:34s}", " ".join(f"{100 * v:5.1f}" for v in found))


shown("zero-shot", torch.nn.Identity())

# Without privacy: cluster centres with variances. Look at what they leak before they leave.
uploads = [extract_prototypes(*rows) for rows in train]
for i, (upload, rows, others) in enumerate(zip(uploads, train, test, strict=True)):
    audit = audit_membership(upload, *rows, *others)
    print(f"clinic {i}: {len(upload)} rows, {upload.nbytes} bytes, membership AUC {audit.auc:.2f}")
adapter, report = train_global_adapter(uploads, head, steps=1000)
shown("one round, cluster_var", adapter)
print(report.certificates()[-1].summary())

# With privacy: class means with noise of the system's entropy, charged to each clinic's ledger.
release = GaussianRelease(epsilon=8, delta=1e-5)
ledger = Ledger(max_epsilon=8, delta=1e-5)
ledger.charge(release)
private = [extract_prototypes(*rows, "mean", dp=release) for rows in train]
noisy, _ = train_global_adapter(private, head, steps=1000, sampler="additive")
shown("one round, epsilon 8", noisy)
for certificate in private[0].certificates():
    print(certificate.verdict, certificate.name, certificate.reason)
try:
    ledger.charge(release)
except RuntimeError as refused:
    print("a second release:", refused)

# A clinic may go on by itself; distillation keeps what the others taught.
local = adapt_locally(adapter, *train[1], head, kd_weight=1.0, epochs=5, shots=8)
shown("clinic 1, adapted with 8 shots", local)
