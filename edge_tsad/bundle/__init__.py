"""Bundles: the one file in which a trained detector travels from a workstation to gateways."""

from edge_tsad.bundle.archive import (
    Bundle,
    Verifier,
    open_bundle,
    parse_bundle,
    write_bundle,
    write_signature,
)
from edge_tsad.bundle.container import DEFAULT_LIMITS, Limits
from edge_tsad.bundle.golden import GoldenWindows, SelfTest, self_test
from edge_tsad.bundle.manifest import (
    FORMAT_VERSION,
    INPUTS,
    MANIFEST,
    SIGNATURE,
    Bounds,
    DetectorInfo,
    Golden,
    Listed,
    Manifest,
    ModelFile,
    Tensor,
    output_tensors,
)

__all__ = [
    "DEFAULT_LIMITS",
    "FORMAT_VERSION",
    "INPUTS",
    "MANIFEST",
    "SIGNATURE",
    "Bounds",
    "Bundle",
    "DetectorInfo",
    "Golden",
    "GoldenWindows",
    "Limits",
    "Listed",
    "Manifest",
    "ModelFile",
    "SelfTest",
    "Tensor",
    "Verifier",
    "open_bundle",
    "output_tensors",
    "parse_bundle",
    "self_test",
    "write_bundle",
    "write_signature",
]
