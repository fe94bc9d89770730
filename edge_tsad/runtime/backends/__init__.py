"""Inference runtimes behind one protocol, one file each; see `edge_tsad.registry.BACKENDS`."""
