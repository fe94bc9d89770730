"""The figures, as Prometheus reads them and as they stand in the retained status."""

from __future__ import annotations

import json
import math
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from service.gateways import (
    START,
    HandSource,
    Running,
    rows,
    wait_for,
    write_config,
)

from edge_tsad.runtime import life
from edge_tsad.runtime.metrics import Metric, exposition
from edge_tsad.runtime.metrics_server import MetricsServer

UNITS = ("_seconds", "_bytes", "_rows", "_points", "_total", "_info")
WITHOUT_UNIT = {"edge_tsad_broker_connected", "edge_tsad_threshold", "edge_tsad_state",
                "edge_tsad_health"}  # fmt: skip


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(life, "LOOK_EVERY_S", 0.1)


def scrape(port: int, path: str = "/metrics") -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())


def values(text: str) -> dict[str, float]:
    """Samples by name and sorted labels."""
    return {
        f"{s.name}{sorted(s.labels.items())}": s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def test_a_scrape_tells_what_the_streams_did(folder: Path) -> None:
    server = MetricsServer(0)
    free = server.port
    server.close()
    path = write_config(folder, ["pump", "fan"], f"[service]\nmetrics_port = {free}")
    with Running(path) as running:
        HandSource.wires["pump"].put(rows([0.5] * 20 + [20.0] * 6 + [0.5] * 10, START))

        def figure(name: str, *labels: tuple[str, str]) -> float:
            return values(scrape(free)).get(f"edge_tsad_{name}{sorted(labels)}", math.nan)

        wait_for(lambda: figure("samples_total", ("stream", "pump")) == 36)
        new = figure("alerts_total", ("stream", "pump"), ("type", "new"))
        assert new == 1 and figure("samples_total", ("stream", "fan")) == 0
        assert figure("outbox_rows") >= 2 and figure("uptime_seconds") > 0
        assert figure("syncs_total", ("purpose", "outbox")) >= 1
        assert figure("written_bytes_total", ("purpose", "outbox")) > 1000
        assert figure("state", ("stream", "fan"), ("state", "WARMING_UP")) == 1
        families = list(text_string_to_metric_families(scrape(free)))
        for family in families:
            assert family.documentation and family.type in ("counter", "gauge")
            names = {sample.name for sample in family.samples}
            assert names <= WITHOUT_UNIT or all(name.endswith(UNITS) for name in names), names
        with pytest.raises(urllib.error.HTTPError, match="404"):
            scrape(free, "/")
        topic = "edge-tsad/plant/gw/status"
        wait_for(lambda: json.loads(running.sink.retained[topic])["figures"], 30)
    status = json.loads(running.sink.retained[topic])
    assert status["writes"]["syncs_per_day"] >= status["writes"]["syncs"] >= 0


def test_a_port_in_use_is_one_sentence(folder: Path) -> None:
    from edge_tsad.errors import ConfigError

    server = MetricsServer(0)
    with pytest.raises(ConfigError, match=r"service\.metrics_port: \d+ cannot be used"):
        MetricsServer(server.port)
    server.close()


def test_labels_are_escaped() -> None:
    odd = 'a"b\\c\nd é'
    text = exposition([Metric("x_total", "Counts").add(1, stream=odd)]).decode()
    (family,) = text_string_to_metric_families(text)
    assert family.samples[0].labels == {"stream": odd} and family.type == "counter"
