"""Fed-RAC-LoRA as a Flower app."""
