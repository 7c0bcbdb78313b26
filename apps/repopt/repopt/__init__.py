"""FedRepOpt as a Flower app."""
