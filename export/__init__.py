"""From a fitted detector to files that a gateway runs: convert, quantize, verify, bundle.

``base`` holds what all formats share, ``onnx`` and ``tflite`` are one format each, ``quantize`` the
schemes and their bounds, ``gate`` what a file must pass (``verify`` scores, ``probes`` odd inputs,
``alerts`` a stream), ``sensitivity`` which layers stay float, ``tail`` the threshold of a file,
``golden`` the windows a gateway tests itself with. ``bench`` makes and tries files, ``build`` makes
bundles of them and ``requantize`` adds to one that exists.
"""
