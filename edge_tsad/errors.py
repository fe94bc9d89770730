"""What can go wrong, as types.

::

    EdgeTsadError            a sentence for the user; the command line exits with status 2
    ├── DataError            a series, column, label or time stamp that cannot be used
    ├── ConfigError          a configuration or an option; names the key path
    ├── BundleError          a damaged, foreign or unsuitable bundle or model file
    │   └── SignatureError   unsigned, signed by nobody known, altered, or older than allowed
    ├── BackendError         an inference runtime that is missing or cannot run a file
    ├── ExportError          a conversion or quantization that failed or was refused by the gate
    └── TransportError       a broker or gateway that cannot be reached or refuses

The message of each is one sentence that says what, where and what to do. Every other exception is a
defect of this program and is shown with its traceback.
"""

__all__ = [
    "BackendError",
    "BundleError",
    "ConfigError",
    "DataError",
    "EdgeTsadError",
    "ExportError",
    "SignatureError",
    "TransportError",
]


class EdgeTsadError(Exception):
    """Base of every error that is the user's to mend; ``str(error)`` is one clear sentence."""


class DataError(EdgeTsadError):
    """A series, column, label or time stamp cannot be used."""


class ConfigError(EdgeTsadError):
    """A configuration file or an option is wrong; the message starts with the key path."""


class BundleError(EdgeTsadError):
    """A bundle or model file is damaged, foreign, or does not fit."""


class SignatureError(BundleError):
    """A bundle is unsigned, signed by an unknown key, altered, or older than the gateway allows."""


class BackendError(EdgeTsadError):
    """An inference runtime is missing or cannot run a model file."""


class ExportError(EdgeTsadError):
    """A conversion failed, or its result was refused because it computes something else."""


class TransportError(EdgeTsadError):
    """A broker or a gateway cannot be reached or refuses the connection."""
