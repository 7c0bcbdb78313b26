"""Fine-tuning with forward passes only, behind the interfaces of other libraries."""
