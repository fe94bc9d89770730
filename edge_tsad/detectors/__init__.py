"""What a detector is, and the ones there are; each is one file plus a line in the registry."""

import edge_tsad.training  # noqa: F401 - before torch: it says how torch's threads wait
