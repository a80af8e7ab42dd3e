"""Reads a config: a YAML file, the files that it extends, overrides. Each mistake is one line of a UserError.

Paths in `extends` are relative to the file that names them. Paths of data and models are relative to the run's working
directory.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import yaml
from pydantic import ValidationError

from data.errors import UserError
from rlhf.config import explain
from rlhf.config.schema import Config, Short

FLOAT = re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$")


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> Config:
    """The config of this file with `a.b.c=value` overrides; values are YAML.

    A mapping is merged with the mapping that it extends, or with the entries of a list: `phases: {ppo: {steps: 5}}`.
    Any other value, also a list, replaces the value that it extends. Entries of a list are named by index or by name:
    `phases.0.steps=5`, `phases.ppo.steps=5`. An override replaces the value that it names.

    Raises UserError with one line per mistake.
    """
    layers = _Layers()
    for source, layer in _read(Path(path)):
        layers.merge(layer, source)
    for text in overrides:
        layers.override(text)
    try:
        return Config.model_validate(layers.tree)
    except ValidationError as error:
        lines = explain.explain(error, layers.tree, lambda where: layers.origin(where) or str(path))
        raise UserError("\n".join(lines)) from None


def dump_config(config: Config) -> str:
    """The whole config as YAML, with defaults. `load_config` reads an equal config back."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Layers:
    """A tree that further layers are merged into. Remembers which file or override set each part."""

    def __init__(self) -> None:
        self.tree: dict[str, Any] = {}
        self.origins: dict[explain.Path, str] = {}

    def origin(self, path: explain.Path) -> str | None:
        """The file or override that last set this path or, if it is not set, the nearest path around it."""
        return next((self.origins[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.origins), None)

    def merge(self, layer: Mapping[Any, Any], source: str, path: explain.Path = ()) -> None:
        for key, value in layer.items():
            where = self._step(path, key, source)
            if isinstance(value, dict) and isinstance(self._container(where), dict | list):
                self.merge(value, source, where)
            else:
                self._put(where, value, source)

    def override(self, text: str) -> None:
        source = f"override {text}"
        dots, equals, value = text.partition("=")
        keys = re.sub(r"\[(\d+)\]", r".\1", dots.strip()).split(".")
        if not equals or not all(keys):
            raise UserError(f"{source}: not of the form path=value, such as run.seed=3")
        path: explain.Path = ()
        for key in keys[:-1]:
            path = self._step(path, key, source)
            inside = self._container(path)
            if inside is None:
                self._put(path, {}, source)
            elif not isinstance(inside, dict | list):
                raise UserError(f"{source}: {explain.dotted(path)} is {inside!r}, which has no settings inside")
        self._put(self._step(path, keys[-1], source), _parse(value, source), source)

    def _step(self, path: explain.Path, key: Any, source: str) -> explain.Path:
        """The path of `key` in the container at `path`; entries of a list have an index and a name."""
        container = self._at(path)
        if not isinstance(container, list):
            return (*path, key)
        if str(key).isdigit():
            if int(key) < len(container):
                return (*path, int(key))
            raise UserError(
                f"{source}: {explain.dotted(path)} has {len(container)} entries, counted from 0; there is no {key}"
            )
        names = [entry.get("name") or entry.get("kind") if isinstance(entry, dict) else None for entry in container]
        if names.count(key) == 1:
            return (*path, names.index(key))
        if key in names:
            raise UserError(
                f"{source}: {explain.dotted(path)} has several entries named {key}; use the index, or give them names"
            )
        known = [str(name) for name in names if name] or [str(index) for index in range(len(container))]
        raise UserError(f"{source}: {explain.dotted(path)} has no entry {key}{explain.did_you_mean(key, known)}")

    def _container(self, path: explain.Path) -> Any:
        """The value at this path; a short form is expanded first, so that it can take further settings. None if not set."""
        value = self._at(path)
        node = explain.node_at(path, self.tree) if isinstance(value, str | list) else None
        if node is not None and issubclass(node, Short):
            value = {node.short: value}
            self._at(path[:-1])[path[-1]] = value
        return value

    def _at(self, path: explain.Path) -> Any:
        value: Any = self.tree
        for part in path:
            value = value.get(part) if isinstance(value, dict) else value[part]
        return value

    def _put(self, path: explain.Path, value: Any, source: str) -> None:
        self._at(path[:-1])[path[-1]] = value
        kept = {other: by for other, by in self.origins.items() if other[: len(path)] != path}
        self.origins = kept | {path: source}


def _read(path: Path, extending: tuple[Path, ...] = ()) -> list[tuple[str, dict[str, Any]]]:
    """(file, its tree) of every file that this file extends, then of the file itself."""
    if path.resolve() in extending:
        raise UserError(f"{extending[-1]}: extends {path}, which extends it in turn; remove one of them")
    if not path.is_file():
        near = explain.did_you_mean(path.name, [file.name for file in path.parent.glob("*.y*ml")])
        by = f"{extending[-1]}: extends {path}, but" if extending else f"{path}:"
        raise UserError(f"{by} there is no such file{near}")
    tree = _parse(path.read_bytes(), str(path))
    if not isinstance(tree, dict | None):
        raise UserError(
            f"{path}: found {type(tree).__name__}, wanted a mapping of settings such as run, models and phases"
        )
    tree = tree or {}
    parents = tree.pop("extends", [])
    parents = [parents] if isinstance(parents, str) else parents
    if not isinstance(parents, list) or not all(isinstance(parent, str) for parent in parents):
        raise UserError(f"{path}: extends: found {parents!r}, wanted a file or a list of files")
    layers = [layer for parent in parents for layer in _read(path.parent / parent, (*extending, path.resolve()))]
    return [*layers, (str(path), tree)]


def _parse(text: str | bytes, source: str) -> Any:
    try:
        return _unshared(yaml.load(text, _Loader))
    except yaml.MarkedYAMLError as error:
        mark = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{source}{mark}: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UserError(f"{source}: not readable as YAML: {str(error).splitlines()[0]}") from None


def _unshared(value: Any) -> Any:
    """A copy without shared parts: an override in one use of a YAML anchor must not change the other uses."""
    if isinstance(value, dict):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list) else value


class _Loader(yaml.SafeLoader):
    """YAML with three changes: a repeated key is an error, 1e-5 is a number, 2026-01-31 is text."""

    yaml_implicit_resolvers: ClassVar[dict] = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is there twice", key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
