#!/bin/sh
# Export and quantize a trained model without any network, look at what came out, keep the files.
#
#   examples/quantize_offline.sh pump.safetensors pump-1.0.0.tsad
set -eu
edge-tsad export "$1" --format tflite,onnx --quantize none,dynamic --out "$2" --files exported
edge-tsad info "$2"
