"""Ways to a gateway, one file each."""
