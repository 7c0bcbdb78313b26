"""Privacy behind the interfaces of other libraries: Opacus, dp-accounting."""
