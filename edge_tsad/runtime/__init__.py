"""What runs on a gateway: from readings to alerts, on numpy and one inference runtime.

The core (resampler, ring buffer, scorer, threshold, alerting, stream) does no I/O and reads no
clock: values and times go in, values come out. Sources, sinks and the gateway's loop are its shell.
"""
