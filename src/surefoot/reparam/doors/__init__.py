"""FedRepOpt behind the interfaces of other libraries."""
