"""Ray and Dask: seeds on other machines."""
