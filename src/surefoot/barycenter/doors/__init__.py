"""The barycenter under the names and calling conventions people already use."""

from surefoot.barycenter.doors.conventions import (
    SUOTMean,
    TauPath,
    fuse_gaussians,
    mean_suot,
    suot_bures_barycenter,
    tau_path,
)

__all__ = [
    "SUOTMean",
    "TauPath",
    "fuse_gaussians",
    "mean_suot",
    "suot_bures_barycenter",
    "tau_path",
]
