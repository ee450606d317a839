"""The results of a probe as text: rows of tables for `dnsblock probe`, and CSV."""

import csv
import io
from collections.abc import Iterator

from dnsblock.errors import counted, printable
from dnsblock.probe.evidence import Evidence, Miss, Row

CSV_COLUMNS = ("resolver", "transport", "name", "type", "expected", "found", "time_ms", "missed", "note")
SUMMARY_COLUMNS = ["resolver", "over", "queries", "missed", "median", "slowest"]
MISS_COLUMNS = ["name", "type", "expected", "found"]
ROW_COLUMNS = ["name", "type", "expected", "found", "time"]
FREE_COLUMNS = ("expected", "found")  # may be folded

Table = list[list[str]]


def headline(evidence: Evidence) -> str:
    """The order, the number of names and of queries, in one line."""
    parts = []
    if evidence.order_id is not None:
        names = counted(evidence.probed, "name")
        if evidence.is_sample:
            names = f"a random sample of {evidence.probed:,} of {evidence.names:,} names"
        order = f"order {printable(evidence.order_id)} of {printable(evidence.issuer or '')}"
        parts.append(f"{order} ({evidence.action}): {names}")
    if evidence.open:
        parts.append(f"{counted(evidence.open, 'name')} that must not be blocked")
    resolvers = len({row.resolver for row in evidence.rows})
    queries = f"{evidence.asked:,} queries to {counted(resolvers, 'resolver')} in {evidence.seconds:.2f} s"
    return f"{', and '.join(parts)}; {queries}"


def conclusion(evidence: Evidence) -> str:
    """The result, in one line."""
    if not evidence.rows:
        return "nothing was queried: there is no name to probe"
    if not evidence.missed:
        return "every response is as expected"
    names = len({row.entry for row in evidence.rows if row.missed})
    resolvers = len({row.resolver for row in evidence.rows if row.missed})
    missed = f"{evidence.missed:,} of {evidence.asked:,} responses are not as expected"
    return f"MISSED: {missed}, for {counted(names, 'name')} at {counted(resolvers, 'resolver')}"


def summary_table(evidence: Evidence) -> Table:
    """A row for each resolver and transport."""
    return [
        [
            *(one.resolver, one.transport, f"{one.asked:,}", f"{one.missed:,}"),
            *(_milliseconds(one.median_ms), _milliseconds(one.slowest_ms)),
        ]
        for one in evidence.summaries
    ]


def miss_tables(evidence: Evidence) -> Iterator[tuple[str, Table]]:
    """The misses of each resolver: a row for each name."""
    for resolver in dict.fromkeys(one.resolver for one in evidence.misses):
        own = [one for one in evidence.misses if one.resolver == resolver]
        rows = [[one.name, _types(one), one.expected, " / ".join(one.found)] for one in own]
        yield f"missed at {resolver}:", rows


def row_tables(evidence: Evidence) -> Iterator[tuple[str, Table]]:
    """All queries of each resolver and transport."""
    for one in evidence.summaries:
        own = [row for row in evidence.rows if (row.resolver, row.transport) == (one.resolver, one.transport)]
        rows = [
            [row.name, row.qtype, row.expected, _found(row), _milliseconds(row.milliseconds)] for row in own
        ]
        yield f"{one.resolver} over {one.transport.upper()}:", rows


def as_csv(evidence: Evidence) -> str:
    """A line for each query (RFC 4180)."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(CSV_COLUMNS)
    for row in evidence.rows:
        said = row.as_json()
        said["missed"] = "yes" if row.missed else "no"
        writer.writerow("" if said[column] is None else said[column] for column in CSV_COLUMNS)
    return file.getvalue()


def _types(miss: Miss) -> str:
    """The types, with the transport if only one of two missed."""
    over = f" ({miss.transports[0]})" if len(miss.transports) == 1 else ""
    return f"{' '.join(miss.qtypes)}{over}"


def _found(row: Row) -> str:
    found = f"{row.found} ({row.note})" if row.note else row.found
    return f"MISSED: {found}" if row.missed else found


def _milliseconds(time: float | None) -> str:
    return "-" if time is None else f"{time:.3g} ms"
