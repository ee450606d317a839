"""The metrics of exports, for `metrics.py`."""

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from dnsblock.http.control import View


def exports(view: View) -> Iterator[Metric]:
    """The files that are kept current for other software."""
    serial = GaugeMetricFamily(
        "dnsblock_export_serial", "Serial of a file that is kept current.", labels=["file"]
    )
    entries = GaugeMetricFamily("dnsblock_export_entries", "Entries in such a file.", labels=["file"])
    left_out = GaugeMetricFamily(
        "dnsblock_export_left_out", "Entries that its format cannot express.", labels=["file"]
    )
    failing = GaugeMetricFamily(
        "dnsblock_export_failing", "1 if such a file could not be written and is outdated.", labels=["file"]
    )
    for file, kept in view.exports.kept.items():
        failing.add_metric([str(file)], int(kept.failure is not None))
        if kept.written is not None:
            serial.add_metric([str(file)], kept.written.serial)
            entries.add_metric([str(file)], kept.written.entries)
            left_out.add_metric([str(file)], sum(kept.written.left_out.values()))
    yield from (serial, entries, left_out, failing)
