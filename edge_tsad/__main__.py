"""``python -m edge_tsad``: the same as the command ``edge-tsad``."""

from edge_tsad.cli import main

if __name__ == "__main__":
    main()
