"""Time-series anomaly detection for edge gateways: train, quantize, flash, alert."""

__version__ = "0.1.0"
