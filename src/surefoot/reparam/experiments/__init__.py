"""The parts of the study of FedRepOpt."""
