"""The optional libraries: transformers, PEFT, Opacus."""
