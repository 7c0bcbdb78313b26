"""The parts of AGNES and NAG: hyperparameters, the update, the two points in one tensor."""
