"""Average the covariances of EEG trials when an electrode came loose in some of them."""

import numpy as np

from surefoot.barycenter import bures_barycenter, suot_barycenter

# Sixty trials of two seconds at 128 Hz: four sources seen by eight electrodes, and sensor noise.
rng = np.random.default_rng(0)
mixing = rng.standard_normal((8, 4))
sources = rng.standard_normal((60, 4, 256)) * np.array([2.0, 1.5, 1.0, 0.7])[:, None]
trials = mixing @ sources + 0.5 * rng.standard_normal((60, 8, 256))
truth = mixing @ np.diag([4.0, 2.25, 1.0, 0.49]) @ mixing.T + 0.25 * np.eye(8)

bad = rng.choice(60, size=15, replace=False)
trials[bad, 2] += 40 * rng.standard_normal((15, 256))  # electrode 2 hangs by its wire

covs = np.stack([np.cov(trial) for trial in trials])
unit = np.trace(covs, axis1=1, axis2=2).mean() / 8  # tau has the unit of a variance
averages = {
    "arithmetic mean": covs.mean(axis=0),
    "Wasserstein": bures_barycenter(covs).cov,
    "fixed mass": suot_barycenter(covs, tau=0.1 * unit).cov,
}
robust = suot_barycenter(covs, tau=0.1 * unit, mass="free", mass_tau="median")
averages["free mass"] = robust.cov
for name, average in averages.items():
    off = np.linalg.norm(average - truth) / np.linalg.norm(truth)
    print(f"{name:>16}: off by {off:.0%}")

suspects = np.sort(np.argsort(-robust.outlier_score)[:15])
print("trials to look at:", suspects, "all of them bad" if set(suspects) == set(bad) else "")
for certificate in robust.certificates():
    print(f"{certificate.verdict}: {certificate.name} ({certificate.reason})")
