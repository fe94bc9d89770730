import pytest

from edge_tsad.errors import ConfigError
from edge_tsad.evaluation.ledger import MOST, Ledger


def test_the_ledger_enters_a_run_once_and_refuses_the_sixth(tmp_path):
    ledger = Ledger(tmp_path / "ledger.csv")
    for number in range(MOST):
        ledger.begin("toys", f"d{number}", 3, "coad")
    ledger.begin("toys", "d0", 3, "coad")
    ledger.begin("others", "d0", 3, "coad")
    ledger.finish("toys", "d0", 3, "coad", {"coad.acc1": 0.5})
    rows = ledger.rows()
    assert len(rows) == MOST + 2
    assert rows[-1]["figures"] == "coad.acc1=0.5000"
    assert rows[-1]["date"].endswith("+00:00")
    with pytest.raises(ConfigError, match="has been run 5 times"):
        ledger.begin("toys", "new", 3, "coad")


def test_a_ledger_that_is_damaged_or_none_is_told(tmp_path):
    ledger = Ledger(tmp_path / "ledger.csv")
    ledger.path.write_text("")
    ledger.begin("toys", "d0", 3, "coad")
    ledger.path.write_bytes(ledger.path.read_bytes() + b"2026-01-01T00:00:00+00:00,abc")
    ledger.begin("toys", "d1", 3, "coad")
    assert [row["digest"] for row in ledger.rows() if row["set"] == "toys"] == ["d0", "d1"]
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for path, sentence in ((tmp_path, "cannot be read"), (tmp_path / "other.csv", "is no ledger")):
        with pytest.raises(ConfigError, match=sentence):
            Ledger(path).begin("toys", "d0", 3, "coad")
