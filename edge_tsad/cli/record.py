"""``edge-tsad record``: the history that a detector is trained on."""

from __future__ import annotations

import dataclasses
import logging
import signal
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import click

from edge_tsad.bundle import open_bundle
from edge_tsad.cli.durations import duration_ns
from edge_tsad.cli.run import plain, source_of
from edge_tsad.config import HistoryConfig, SourceConfig, StreamConfig, load_config
from edge_tsad.errors import ConfigError, DataError, EdgeTsadError
from edge_tsad.registry import SOURCES
from edge_tsad.runtime.history import History
from edge_tsad.runtime.recording import Recorder, Track, export, timing_of
from edge_tsad.runtime.segments import Layout, read_recording
from edge_tsad.types import NANOSECONDS, Channel, Timing

__all__ = ["command"]

FILES = (".csv", ".npz")


@click.command(
    name="record",
    help="""Record streams on their grid, as a history to train on.

Rows go into a folder of bounded size, the oldest give way; a power cut costs at most the last
minute. `edge-tsad train` reads the folder. When OUT is a .csv or .npz file, the folder is OUT.d,
and the file is written at the end. A second call goes on where the first one ended.

\b
Examples:
  edge-tsad record --source system --out host --for 24h && edge-tsad train host
  edge-tsad record --source stdin --channels flow,pressure --step 100ms --out pump.csv
  edge-tsad record gateway.toml --max-mb 1000
  edge-tsad record --from pump.csv.d --last 30d --out last-month.npz
""",
)
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--source", help="csv:FILE, stdin, system, mqtt:TOPIC or serial:PORT.")
@click.option("--channels", help="Names, with commas.  [those that the source has by itself]")
@click.option("--step", default=None, help='Grid step, such as "1s" or "100ms".  [1s]')
@click.option("--speed", help='Of a replayed file: a factor, or "max".  [max]')
@click.option("--out", type=click.Path(path_type=Path), help="Folder, .csv or .npz file.")
@click.option("--for", "span", help='End after so long, such as "24h".  [Ctrl-C]')
@click.option("--max-mb", type=float, help="Bound of the folder of each stream.  [256]")
@click.option("--from", "folder", type=click.Path(path_type=Path), help="Only export this folder.")
@click.option("--last", help='With --from or a file: only so much, such as "30d".')
def command(
    *,
    config: Path | None,
    source: str | None,
    channels: str | None,
    step: str | None,
    speed: str | None,
    out: Path | None,
    span: str | None,
    max_mb: float | None,
    folder: Path | None,
    last: str | None,
) -> None:
    """Record until the sources end, ``--for`` is over or a signal comes; or only export."""
    logging.basicConfig(format="%(levelname).1s %(message)s", level=logging.WARNING)
    if [config, source, folder].count(None) != 2:
        raise ConfigError("record: give either a CONFIG file, --source or --from")
    if config is not None and (channels or step or speed):
        raise ConfigError(f"record: --channels, --step and --speed belong into the file {config}")
    last_ns = duration_ns(last, "--last")
    if folder is not None:
        write(folder, needed(out, "--from needs --out FILE"), last_ns)
        return
    limit_ns = duration_ns(span, "--for")
    if source is not None:
        target = needed(out, "--source needs --out")
        streams = [(one_stream(source, channels, step, speed, target), where(target))]
        settings = HistoryConfig()
    else:
        assert config is not None
        streams, settings = configured(config, out)
    if max_mb is not None:
        settings = dataclasses.replace(settings, max_mb=max_mb)
    record([track(stream, to, settings) for stream, to in streams], limit_ns)
    if out is not None and out.suffix.lower() in FILES:
        write(streams[0][1], out, last_ns)


def needed(out: Path | None, otherwise: str) -> Path:
    """``out``, whose folder exists."""
    if out is None:
        raise ConfigError(f"record: {otherwise}")
    if not out.absolute().parent.is_dir():
        raise ConfigError(f"--out: the folder {out.parent} does not exist; make it first")
    return out


def where(out: Path) -> Path:
    """The folder of the segments."""
    return out.with_name(out.name + ".d") if out.suffix.lower() in FILES else out


def one_stream(
    source: str, channels: str | None, step: str | None, speed: str | None, out: Path
) -> StreamConfig:
    """The stream that the options describe.

    Raises:
        ConfigError: an option is wrong.
    """
    names = [name.strip() for name in channels.split(",")] if channels else []
    replayed = source.partition(":")[0] == "csv"
    step_ns = duration_ns(step or "1s", "--step")
    assert step_ns is not None
    return StreamConfig(
        name=plain(out.stem) or "stream",
        source=source_of(source, speed or ("max" if replayed else None)),
        channels=tuple(Channel(name) for name in names),
        step_s=step_ns / NANOSECONDS,
    )


def configured(
    path: Path, out: Path | None
) -> tuple[list[tuple[StreamConfig, Path]], HistoryConfig]:
    """The streams of a configuration, each with its folder.

    Raises:
        ConfigError: the file is wrong, or a single OUT file is asked for several streams.
    """
    config = load_config(path)
    base = config.folder / "history" if out is None else needed(out, "")
    if out is not None and out.suffix.lower() in FILES:
        if len(config.streams) > 1:
            raise ConfigError(f"--out: {path} has several streams; give a folder for them")
        return [(config.streams[0], where(out))], config.history
    return [(stream, base / stream.name) for stream in config.streams], config.history


def track(stream: StreamConfig, folder: Path, settings: HistoryConfig) -> Track:
    """The stream, ready to be recorded.

    Raises:
        EdgeTsadError: its source, its bundle or the folder cannot be used.
    """
    try:
        timing, channels = grid_of(stream)
        kind = SOURCES[stream.source.type]
        source = kind(stream.source.options, channels, timing)
    except EdgeTsadError as e:
        raise type(e)(f"{stream.name}: {e}") from e
    layout = Layout(timing.step_ns, channels, timing.has_rate)
    history = History(folder, layout, int(settings.max_mb * 1e6), settings.sync_s)
    return Track(stream.name, source, history, int(stream.lateness_s * NANOSECONDS))


def grid_of(stream: StreamConfig) -> tuple[Timing, tuple[Channel, ...]]:
    """Grid and channels, from the bundle or else as configured."""
    if stream.bundle:
        manifest = open_bundle(Path(stream.bundle)).manifest
        return manifest.timing, manifest.channels
    source: SourceConfig = stream.source
    channels = stream.channels or SOURCES[source.type].known_channels(source.options)
    if not channels:
        raise ConfigError(f"channels: the source {source.type} cannot name them; give them")
    return timing_of(round(stream.step_s * NANOSECONDS)), channels


def record(tracks: list[Track], limit_ns: int | None) -> None:
    """Record, and say what came of it.

    Raises:
        DataError: something could not be recorded.
    """
    recorder = Recorder(tracks)

    def stop(number: int, frame: FrameType | None) -> None:
        recorder.stop()

    with_signals(stop, lambda: recorder.run(None if limit_ns is None else limit_ns / NANOSECONDS))
    for each in tracks:
        rows, folder = each.history.rows, each.history.folder
        click.echo(f"{each.name}: {rows:,} rows recorded, {folder}", err=True)
        if each.resampler.late:
            click.echo(f"{each.name}: {each.resampler.late:,} came too late", err=True)
    if errors := [f"{each.name}: {each.error}" for each in tracks if each.error]:
        raise DataError("; ".join(errors))


def with_signals(stop: Callable[[int, FrameType | None], None], run: Callable[[], None]) -> None:
    """``run`` while SIGTERM and SIGINT call ``stop``: both are the usual end of a recording."""
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write(folder: Path, out: Path, last_ns: int | None) -> None:
    """Export the segments in ``folder`` into the file ``out``."""
    recording = read_recording(folder, last_ns)
    export(recording, out)
    click.echo(f"{out}: {len(recording.index):,} rows", err=True)
    if recording.other:
        click.echo(
            f"{folder}: {recording.other} older segment(s) have other channels or another step "
            "and are left out", err=True,
        )  # fmt: skip
