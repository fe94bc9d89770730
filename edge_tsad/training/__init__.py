"""From a series to a trained model: period, timing, distortions, fit and calibration."""

import os

# Before torch is imported: its threads then sleep while they wait for each other. By default they
# spin, and where other programs share the cores a fit takes a hundred times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
