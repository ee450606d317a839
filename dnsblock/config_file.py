"""Reads the configuration file into a `Config`, or refuses it with all of its problems.

Relative paths are relative to the configuration file's folder. This module does not access the network,
lists or orders.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dnsblock import document
from dnsblock.config import BUILT_IN, Config
from dnsblock.config_rpz import GIVEN
from dnsblock.control import MAX_BYTES
from dnsblock.document import Document
from dnsblock.errors import Problem, Refused
from dnsblock.values import RESOLV_CONF, Endpoint, FormerServers


def load(path: Path, resolv_conf: Path = RESOLV_CONF) -> Config:
    """Reads and checks the configuration file. Raises `Refused` with all of its problems.

    `resolv_conf` is what `upstream.servers: system` reads.
    """
    config, problems = inspect(path, resolv_conf)
    if problems or config is None:
        raise Refused(problems)
    return config


def load_again(running: Config, resolv_conf: Path = RESOLV_CONF) -> tuple[Config, tuple[Problem, ...]]:
    """Reads the configuration file of the running settings again; also returns why a part is not applied.

    If the file has a problem, the running settings are returned. If only `resolv_conf` has one, its previous
    servers are kept.
    """
    former = FormerServers(tuple(str(server) for server in running.upstream.servers))
    config, problems = inspect(running.path, resolv_conf, former)
    if problems or config is None:
        return running, problems
    return config, tuple(former.problems)


def inspect(
    path: Path, resolv_conf: Path = RESOLV_CONF, former: FormerServers | None = None
) -> tuple[Config | None, tuple[Problem, ...]]:
    """All problems of the configuration file, and the settings from its valid parts, if any.

    With problems, the settings are only for further checks, never for running. `former` servers replace
    ones that cannot be read.
    """
    path = path.absolute()
    try:
        data = document.read_bytes(path, max_bytes=MAX_BYTES)
        read = document.read(str(path), data, max_bytes=MAX_BYTES)
    except Refused as err:
        return None, err.problems
    value: Any = {} if read.value is None else read.value  # only comments: all defaults
    context = {"file": path, "resolv_conf": resolv_conf, "former": former}
    try:
        config = Config.model_validate(value, context=context)
    except ValidationError as err:
        return _salvage(value, err, context), tuple(_all_problems(read, value, context, err))
    return config, tuple(_cross_check(config, read, broken=frozenset()))


def _salvage(value: Any, errors: ValidationError, context: Any) -> Config | None:
    """The settings without invalid options; a sequence, such as zones, loses only its invalid items."""
    if not isinstance(value, dict):
        return None
    broken = {error["loc"][:2] for error in errors.errors()}

    def right(key: str, part: Any) -> Any:
        return [item for index, item in enumerate(part) if (key, index) not in broken]

    is_broken = {loc[0] for loc in broken if loc and not (len(loc) > 1 and isinstance(loc[1], int))}
    valid = {key: part for key, part in value.items() if key not in is_broken}
    valid = {key: right(key, part) if isinstance(part, list) else part for key, part in valid.items()}
    try:
        return Config.model_validate(valid, context=context)
    except ValidationError:
        return None


def _all_problems(read: Document, value: Any, context: Any, errors: ValidationError) -> Iterator[Problem]:
    """The errors, and the conflicts between options that are valid on their own."""
    yield from read.explain(errors)
    broken = frozenset(str(error["loc"][0]) for error in errors.errors() if error["loc"])
    try:
        right = {key: part for key, part in value.items() if key not in broken}
        config = Config.model_validate(right, context=context)
    except (ValidationError, AttributeError):  # not a mapping, or no system resolvers
        return
    yield from _cross_check(config, read, broken)


# ------- Checks that involve several options -------


def _cross_check(config: Config, read: Document, broken: frozenset[str]) -> Iterator[Problem]:
    """Conflicts between options. `broken` options have their defaults here and are not checked."""
    for name in config.answers.keys() & (BUILT_IN.keys() | {GIVEN}):
        yield read.problem(("answers", name), name, "this answer profile is built in and cannot be changed")
    for index, endpoint in enumerate(config.listen):
        if endpoint.port and endpoint in config.listen[:index]:
            yield read.problem(("listen", index), str(endpoint), "is listed twice")
    if not broken & {"listen", "upstream"}:
        for index, server in enumerate(config.upstream.servers):
            if any(_is_reached_at(listen, server.address) for listen in config.listen):
                reason = "this is our own listen address, a loop: list the real resolvers in upstream.servers"
                yield read.problem(("upstream", "servers", index), str(server), reason)
    yield from _check_zones(config, read, broken)
    yield from _check_exports(config, read, broken)
    yield from _check_webhooks(config, read, broken)


def _is_reached_at(listen: Endpoint, server: Endpoint) -> bool:
    if listen.port != server.port or listen.host.version != server.host.version:
        return False
    return listen.host == server.host or (listen.host.is_unspecified and server.host.is_loopback)


def _check_zones(config: Config, read: Document, broken: frozenset[str]) -> Iterator[Problem]:
    first: dict[tuple[str, str], int] = {}  # (key, value): the line of its first occurrence
    for index, zone in enumerate(config.zones):
        for key, value in (("name", zone.name), ("issuer", zone.issuer)):
            if value is not None and (key, value) in first:
                reason = f"the zone on line {first[key, value]} has this {key} already"
                yield read.problem(("zones", index, key), value, reason)
            elif value is not None:
                first[key, value] = read.line(("zones", index, key))
        if zone.gives_answers:
            continue
        if zone.answer not in config.answer_names and "answers" not in broken:
            reason = f"no such answer profile; there are {', '.join(sorted(config.answer_names))}"
            yield read.problem(("zones", index, "answer"), zone.answer, reason)
        elif "exceptions" in zone.source.model_fields_set and config.answer(zone.answer).is_passthru:
            reason = "belongs to a list that blocks: with answer passthru, exceptions are what a list lists"
            yield read.problem(("zones", index, "source", "exceptions"), zone.source.exceptions, reason)

    for index, issuer in enumerate(config.issuers):
        if any(one.id == issuer.id for one in config.issuers[:index]):
            yield read.problem(("issuers", index, "id"), issuer.id, "this issuer is listed twice")


def _check_exports(config: Config, read: Document, broken: frozenset[str]) -> Iterator[Problem]:
    zones = {zone.name: zone for zone in config.zones}
    files = [os.path.realpath(export.file) for export in config.exports]
    for index, export in enumerate(config.exports):
        if files[index] in files[:index]:
            yield read.problem(("exports", index, "file"), str(export.file), "this file is listed twice")
        for name in () if "zones" in broken else export.zones or zones:
            why = None
            if name not in zones:
                why = "no zone has this name"
            elif zones[name].clients is not None and not zones[name].is_shadow:
                why = "this zone is for some clients only, which other software cannot know: name the others"
            elif zones[name].is_shadow and export.zones:
                why = "a shadow zone enforces nothing"
            elif export.format == "rpz" and not (zones[name].is_shadow or zones[name].judges_targets):
                why = "this zone has `targets: ignore`, which RPZ cannot express: name the other zones"
            if why is not None:
                yield read.problem(("exports", index, "zones"), name, why)


def _check_webhooks(config: Config, read: Document, broken: frozenset[str]) -> Iterator[Problem]:
    names = [webhook.name for webhook in config.webhooks]
    issuers = {zone.issuer for zone in config.zones} | {issuer.id for issuer in config.issuers}
    for index, webhook in enumerate(config.webhooks):
        if webhook.name in names[:index]:
            yield read.problem(("webhooks", index, "name"), webhook.name, "this name is listed twice")
        if webhook.issuer not in issuers and not broken & {"zones", "issuers"}:
            reason = "no zone and no entry of `issuers` has this issuer, so there are no events"
            yield read.problem(("webhooks", index, "issuer"), webhook.issuer, reason)
