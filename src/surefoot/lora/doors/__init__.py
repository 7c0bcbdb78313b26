"""Chains behind the interfaces of other libraries: PEFT, transformers, Flower."""
