"""The quantities that the theorems speak of, under the names that a record has them by."""

DEFECT, GAP = "one-step defect", "free-running gap"
EXCESS, RISE, LEAST = "excess over descent bound", "rise", "least squared step"
STEP_SIZE = "step size"
KINKS = "sums on ReLU's kink"
NOISE = "deviations of the merged noise"


def column(quantity: str, of: str) -> str:
    """The name of a quantity where one record holds several things that ran."""
    return f"{quantity}, {of}" if of else quantity
