"""From a fitted detector to files that a gateway runs: convert, quantize, verify, bundle.

``base`` holds what all formats share, ``onnx`` and ``tflite`` are one format each, ``quantize`` the
schemes and their bounds, ``verify`` the gate, ``tail`` the threshold of a file, ``golden`` the
windows a gateway tests itself with, and ``build`` runs it all.
"""
