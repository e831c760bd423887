"""Every setting in force, as a file would spell it, with its origin: for `validate --show`.

Knows the schema, the parsed file, and for defaults that follow from other settings what was built of it; every
replaced value is masked (threats I3).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pydantic_core import PydanticUndefined

from ambassador.config import plugins, schema
from ambassador.config.annotations import Named, Or
from ambassador.config.document import Document, KeyPath, spell
from ambassador.config.leaves import Secret
from ambassador.config.substitute import MASK, Substituted

if TYPE_CHECKING:
    from ambassador.config.model import Config, InboundConfig, OutboundConfig

Setting = tuple[str, str, str]

_DEFAULT = re.compile(r":-[^}]*")


def settings(document: Document, config: Config) -> list[Setting]:
    """Give key path, value and origin of every setting of a valid file, defaults included."""
    return _Shower(document, config).section(schema.File, document.root, ())


class _Shower:
    """Walks schema and file together."""

    __slots__ = ("_config", "_document", "_long_forms")

    def __init__(self, document: Document, config: Config) -> None:
        self._document = document
        self._config = config
        self._long_forms: dict[
            KeyPath, KeyPath
        ] = {}  # app.address -> app, when only that is written

    def section(self, section: type[schema.Section], given: Any, path: KeyPath) -> list[Setting]:
        defaults: dict[str, Any] = {}
        if issubclass(section, schema.Listener) and given.get("protocol") == "tcp":
            defaults = section.tcp_defaults
        opaque = bool(defaults) or (section is schema.HealthCheck and given.get("kind") == "tcp")
        nearer = (
            section.http_only & set(schema.RouteSettings.model_fields)
            if _inherits(section)
            else frozenset()
        )
        derived = self._derived(section, given, path)
        found: list[Setting] = []
        for name, field in section.model_fields.items():
            default = derived.get(name, defaults.get(name, field.default))
            if name in given:
                value = self._long_form(field, given[name], (*path, name))
                found += self._value(field.annotation, value, (*path, name))
            elif opaque and name in section.http_only:
                continue  # tcp has no such setting
            elif default is None or default is PydanticUndefined or name in nearer:
                continue  # not there, or what the listener says is in force
            else:
                found += self._value(field.annotation, default, (*path, name))
        if section is schema.PluginDiscovery:
            found += self._plugin(given, path)
        return found

    def _plugin(self, given: dict[str, Any], path: KeyPath) -> list[Setting]:
        """Give the keys that only a plugin knows."""
        plugin = plugins.find(given["kind"])
        if plugin is None:  # uninstalled since the file was judged
            return []
        values = {**plugins.defaults(plugin), **given}
        return [
            (
                spell((*path, name)),
                MASK if plugins.is_secret(plugin, name) else _spelled(value),
                self._origin((*path, name)),
            )
            for name, value in values.items()
            if name in plugin.checks
        ]

    def _value(self, annotation: Any, value: Any, path: KeyPath) -> list[Setting]:
        sections = _sections(annotation)
        if len(sections) > 1 and isinstance(value, dict):  # the kind of discovery chooses
            chosen = [one for one in sections if one.chosen_by == value["kind"]]
            sections = chosen or [schema.PluginDiscovery]
        if sections and isinstance(value, dict):
            if _is_named(annotation):
                return [
                    setting
                    for name, one in value.items()
                    for setting in self.section(sections[0], one, (*path, name))
                ]
            return self.section(sections[0], value, path)
        if sections and isinstance(value, list):
            return [
                setting
                for number, one in enumerate(value)
                for setting in self._value(sections[0], one, (*path, number))
            ]
        shown = MASK if _is_secret(annotation) else _spelled(value)
        return [(spell(path), shown, self._origin(path))]

    def _long_form(self, field: Any, value: Any, path: KeyPath) -> Any:
        """Give the mapping for which a scalar stands: the defaults beside it are in force too."""
        words = {mark.word for mark in field.metadata if isinstance(mark, Or)}
        for mark in field.metadata:
            if isinstance(value, str) and value in words:
                return value
            if isinstance(mark, Named) and _sections(field.annotation):
                if isinstance(value, (dict, list)):
                    return value
                self._long_forms[(*path, mark.key)] = path
                return {mark.key: value}
        return value

    def _derived(  # noqa: PLR0911  # a table by section
        self, section: type[schema.Section], given: dict[str, Any], path: KeyPath
    ) -> dict[str, Any]:
        """Give the defaults that follow from other settings; what follows from a replaced value is masked too."""
        config = self._config
        if section is schema.File:
            return {"name": config.name}
        if section is schema.Tls:
            return {"min_version": _as(given.get("profile"), config.tls.min_version)}
        if section is schema.Service:
            return self._of_service(given, str(path[-1]))
        if issubclass(section, schema.Listener):
            listener = self._listener(path)
            limit = listener.limits.max_connections_per_peer
            most = given.get("max_connections")
            return {"name": listener.name, "max_connections_per_peer": _as(most, limit)}
        if section is schema.Rule:
            return {"name": f"{path[-2]}-{_number(path)}"}
        if section in (schema.InboundRoute, schema.OutboundRoute):
            return {"name": f"route-{_number(path)}"}
        return {}

    def _of_service(self, given: dict[str, Any], name: str) -> dict[str, Any]:
        service = self._config.services[name]
        derived: dict[str, Any] = {"protocol": "http"} if "listen" in given else {}
        if service.plaintext == "none":
            peers = given.get("peer")
            dns = [
                one.get("dns")
                for one in (peers if isinstance(peers, list) else [peers])
                if one.__class__ is dict
            ]
            replaced = next((one for one in dns if isinstance(one, Substituted)), None)
            derived["server_name"] = _as(replaced, service.server_name or "none")
            derived["alpn"] = list(service.alpn) or "none"
        return derived

    def _listener(self, path: KeyPath) -> InboundConfig | OutboundConfig:
        listeners = self._config.inbound if path[0] == "inbound" else self._config.outbound
        return listeners[path[1] if len(path) > 1 and isinstance(path[1], int) else 0]

    def _origin(self, path: KeyPath) -> str:
        document = self._document
        path = self._long_forms.get(path, path)
        known = [key for key in document.values if key[: len(path)] == path]
        if path not in document.values:
            return "default"
        line = document.place(path).line
        # A default may be a secret too, so only the variable's name is shown.
        sources = [
            _DEFAULT.sub("", document.replaced[key]) for key in known if key in document.replaced
        ]
        return f"{document.file}:{line}" + (f" {' '.join(sources)}" if sources else "")


def _inherits(section: type[schema.Section]) -> bool:
    """Say whether route settings that are not written here come from somewhere else."""
    return issubclass(section, schema.RouteSettings) and not issubclass(section, schema.Listener)


def _number(path: KeyPath) -> int:
    """Give the place in a list, counted from 1; a single one is the first."""
    return path[-1] + 1 if isinstance(path[-1], int) else 1


def _as(source: Any, value: Any) -> Any:
    """Give a value that follows from `source`, hidden when that is."""
    return Substituted(value) if isinstance(source, Substituted) else value


def _is_named(annotation: Any) -> bool:
    return get_origin(annotation) is dict


def _sections(annotation: Any) -> list[type[schema.Section]]:
    if isinstance(annotation, type) and issubclass(annotation, schema.Section):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _is_secret(annotation: Any) -> bool:
    return annotation is Secret or any(_is_secret(part) for part in get_args(annotation))


def _spelled(value: Any) -> str:
    match value:
        case Substituted():
            return MASK
        case bool():
            return "true" if value else "false"
        case dict():
            return "{" + ", ".join(f"{name}: {_spelled(one)}" for name, one in value.items()) + "}"
        case list():
            return f"[{', '.join(_spelled(one) for one in value)}]"
        case _:
            return str(value)
