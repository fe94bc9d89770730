"""``edge-tsad info``: everything that a person would ask about a bundle."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_tsad.bundle import open_bundle
from edge_tsad.bundle.summary import summarize
from edge_tsad.cli.tables import duration, number, pairs, printable, scheme_cell, table
from edge_tsad.cli.trust import keys_option, load_keys
from edge_tsad.decode import Json, encode
from edge_tsad.errors import BackendError
from edge_tsad.runtime.apart import Verdict, choose_apart

__all__ = ["command"]

CLASSES = "behaviours"
"""The setting of a detector that says in words what each class of behaviour is."""

LONG = ("loss_curve",)
"""Facts of the training that only --json shows, and report draws."""

EXAMPLE = """\b
Example:
  edge-tsad info pump-1.0.tsad
  edge-tsad info pump-1.0.tsad --budget 2/7d --json
"""


@click.command("info", short_help="Show what is in a bundle.", epilog=EXAMPLE)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    metavar="N/SPAN",
    help="Alarm budget to show the threshold for, such as 2/7d or 1/10000pt; may be repeated.",
)
@click.option("--card", is_flag=True, help="Print the model card instead.")
@click.option("--try/--no-try", "attempt", default=True, help="Run its files here.  [--try]")
@keys_option
def command(
    *,
    bundle: Path,
    as_json: bool,
    budgets: tuple[str, ...],
    card: bool,
    attempt: bool,
    keys: Path | None,
) -> None:
    """Show what is in BUNDLE: signature, channels, timing, thresholds, files, training.

    Its model files are also run here, in a process of their own: which pass the bundle's golden
    windows, how long a window takes, and which of them edge-tsad run would use and why.
    """
    opened = open_bundle(bundle, trusted=load_keys(keys) if keys else None)
    if card:
        text = opened.read(opened.manifest.card.path).decode("utf-8", "replace")
        lines = text.splitlines()
    else:
        facts = summarize(opened, budgets)
        facts |= {"here": here(bundle)} if attempt else {}
        lines = [json.dumps(facts, indent=2)] if as_json else render(facts)
    for line in lines:
        click.echo(line if as_json and not card else printable(line))


def render(facts: dict[str, Json]) -> list[str]:
    """The facts as lines of text."""
    sections = {
        f"{facts['name']} {facts['version']}": pairs(identity(facts)),
        "Channels": channels(facts["channels"]),
        "Classes of behaviour": behaviours(facts["detector"]["settings"]),
        "Timing": timing(facts),
        "Files": files(facts["files"]),
        "On this machine": trials(facts["here"]) if "here" in facts else [],
        "Alarm budgets": budgets(facts["files"], facts.get("here", {}).get("chosen")),
        "Checks and training": pairs(provenance(facts)),
        "Warnings": [f"! {line}" for line in facts["warnings"]],
    }
    lines: list[str] = []
    for title, body in sections.items():
        if body:
            lines += ["", title] if lines else [title]
            lines += [f"  {line}" for line in body]
    return lines


def identity(facts: dict[str, Json]) -> dict[str, str]:
    """What it is, who vouches for it."""
    signature, detector = facts["signature"], facts["detector"]
    shape = {key: value for key, value in detector["settings"].items() if key != CLASSES}
    by = f", by key {', '.join(signature['keys'])}" if signature["keys"] else ""
    hint = "; check with --keys" if signature["state"] == "not checked" else ""
    return {
        "file": f"{facts['path']}, format {facts['format_version']}, {number(facts['size'])} bytes"
        " of content",
        "digest": facts["digest"],
        "signature": f"{signature['state']}{by}{hint}",
        "counter": f"{facts['counter']}; once committed, none below "
        f"{facts['minimum_counter']} is accepted",
        "detector": f"{detector['name']} {settings(shape)}".rstrip(),
    }


def behaviours(detector: dict[str, Json]) -> list[str]:
    """What the classes are that alerts name by number; nothing for a detector without any."""
    return [f"class {number}: {words}" for number, words in enumerate(detector.get(CLASSES) or ())]


def settings(values: dict[str, Json]) -> str:
    """A flat table as ``key=value`` words."""
    words = (f"{key}={short(value)}" for key, value in values.items())
    return " ".join(words)


def short(value: Json) -> str:
    """JSON, but three digits of a number are enough for a person."""
    if isinstance(value, float):
        return f"{value:.3g}"
    return json.dumps(value, ensure_ascii=False)


def channels(rows: list[dict[str, Json]]) -> list[str]:
    """One line per channel."""
    body = [
        [row["name"], row["unit"] or "-", row["aggregate"], f"{row['hold']} cells"] for row in rows
    ]
    return table(["channel", "unit", "in a cell", "held for"], body)


def timing(facts: dict[str, Json]) -> list[str]:
    """Every span in points and, where the data has a rate, in seconds."""
    spans, policy = facts["timing"], facts["policy"]
    step = spans["step_seconds"]
    rows = {label: spans[label] for label in ("period", "window", "hop", "delay", "smoothing")}
    rows |= {f"alert {k.replace('_', ' ')}": v for k, v in policy.items() if k != "hysteresis"}
    body = [[k, number(v["points"]), duration(v["seconds"])] for k, v in rows.items()]
    body.insert(0, ["grid step", "1", duration(step)])
    lines = table(["span", "points", "time"], body)
    lines.append(f"alert hysteresis {policy['hysteresis']:g} of the way from median to threshold")
    if step is None:
        lines.append("The data came without time stamps: spans are points, budgets count points.")
    return lines


def files(rows: list[dict[str, Json]]) -> list[str]:
    """One line per model file; its error is in units of threshold − median normal score."""
    body = []
    for row in rows:
        runtimes = ", ".join(f"{name} >= {least}" for name, least in row["runtimes"].items())
        parity = row["parity"]
        error, alerts = parity.get("p999"), parity.get("alerts")
        body.append(
            [
                *(row["path"], row["format"]),
                scheme_cell(row["scheme"], parity),
                number(row["size"]),
                "-" if error is None else f"{error:.2g}",
                f"{alerts['changed']} of {alerts['expected']}" if alerts else "-",
                runtimes or "-",
            ]
        )
    header = ["file", "format", "scheme", "bytes", "error 99.9 %", "alerts changed", "runtimes"]
    return table(header, body)


def here(path: Path) -> dict[str, Json]:
    """How each file does on this machine; ``problem`` says why none can be used."""
    try:
        verdict: Json = encode(choose_apart(path))
    except BackendError as e:
        verdict = encode(Verdict(problem=str(e)))
    return {key: value for key, value in verdict.items() if key != "missing"}


def trials(facts: dict[str, Json]) -> list[str]:
    """One line per file and runtime, and what they lead to."""
    chosen, body = facts["chosen"], []
    for row in facts["trials"]:
        median = "-" if row["median_ms"] is None else f"{row['median_ms']:.3g}"
        golden = row["problem"] or f"pass, worst at {row['worst']:.2g} of its bound"
        runtime = f"{row['runtime']} {row['version']}".rstrip()
        mark = "used" if row == chosen else ""
        body.append([row["path"] or "-", runtime, median, mark, golden])
    lines = table(["file", "runtime", "ms/window", "", "golden windows"], body)
    if chosen is None:
        return [*lines, f"! {facts['problem']}"]
    return [*lines, f"{chosen['path']} on {chosen['runtime']} is used: {facts['why']}"]


def budgets(rows: list[dict[str, Json]], chosen: dict[str, Json] | None) -> list[str]:
    """What each alarm budget means for the file in use, and how much history is still missing.

    Files have thresholds of their own, but all from one history: one of them says enough.
    """
    if not rows:
        return []
    path = chosen["path"] if chosen else rows[0]["path"]
    row = next(one for one in rows if one["path"] == path)
    needs: dict[str, list[str]] = {}
    for entry in row["budgets"]:
        if entry["needed"]:
            needs.setdefault(need(row, entry), []).append(entry["budget"])
    header = ["budget", "threshold", "state", "expected openings", "will be seen (90 %)"]
    lines = table(header, [budget_cells(entry) for entry in row["budgets"]])
    lines += [f"{', '.join(which)}: {text}" for text, which in needs.items()]
    if len(rows) > 1:
        lines.append(f"These are of {path}; --json has the thresholds of all files.")
    return lines


def budget_cells(entry: dict[str, Json]) -> list[str]:
    """One row of the table of budgets."""
    expected = "unknown" if entry["expected"] is None else f"{entry['expected']:.3g}"
    if entry["interval"]:
        low, high = entry["interval"]
        expected += f" ({low:.3g} to {high:.3g})"
    seen = "unknown" if entry["counts"] is None else "{} to {}".format(*entry["counts"])
    return [entry["budget"], f"{entry['threshold']:.5g}", entry["state"], expected, seen]


def need(row: dict[str, Json], entry: dict[str, Json]) -> str:
    """How much more history a budget needs."""
    needed, history = entry["needed"], row["history"]
    return (
        f"{entry['state']} from {amount(history)} of history; {amount(needed)} more would"
        " calibrate it"
    )


def amount(span: dict[str, Json]) -> str:
    """A span as ``n points (time)``."""
    time = "" if span["seconds"] is None else f" ({duration(span['seconds'])})"
    return f"{number(span['points'])} points{time}"


def provenance(facts: dict[str, Json]) -> dict[str, str]:
    """Golden windows, card and what training recorded."""
    golden, card = facts["golden"], facts["card"]
    training = {
        key.replace("_", " "): value if isinstance(value, str) else json.dumps(value)
        for key, value in facts["training"].items()
        if key not in LONG
    }
    return {
        "golden windows": f"{golden['count']} in {golden['path']}, from seed {golden['seed']}",
        "card": f"{card['path']} in the bundle (edge-tsad info --card)",
        **training,
    }
