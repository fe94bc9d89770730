"""Where samples come from; `edge_tsad.registry.SOURCES` names them."""
