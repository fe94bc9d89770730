"""systemd units of a gateway, as text to be installed."""

from __future__ import annotations

from importlib.resources import files

__all__ = ["GATEWAY_UNIT", "unit_text"]

GATEWAY_UNIT = "edge-tsad.service"


def unit_text(
    name: str = GATEWAY_UNIT,
    *,
    executable: str = "/usr/local/bin/edge-tsad",
    config: str = "/etc/edge-tsad/gateway.toml",
    memory_max: str = "256M",
) -> str:
    """The unit ``name`` of this package.

    Args:
        name: of a file in this folder.
        executable: absolute path of the command ``edge-tsad``.
        config: absolute path of the gateway's configuration.
        memory_max: beyond this the kernel ends the process; see ``service.max_rss_mb`` for the
            planned way, which should come well before.
    """
    text = files(__package__).joinpath(name).read_text("utf-8")
    values = {"@EXECUTABLE@": executable, "@CONFIG@": config, "@MEMORY_MAX@": memory_max}
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    return text
