"""The bridge from a bundle to a gateway: flashing, slots, provisioning."""
