"""How blocks are unpacked: a C kernel where there is a compiler, torch everywhere."""
