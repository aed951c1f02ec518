"""Plug-ins by name: the modules of a package, and those that installed packages add by entry points.

A package such as `stores.codecs` holds one module a plug-in, found by its file name. Another installed
package adds its own by an entry point in the group of that kind. Its name is the plug-in's, and its value is
a module with the same contents as a file of the package:

    [project.entry-points."permafrost.codecs"]
    log8 = "my_package.log8"
"""

from __future__ import annotations

import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType


class PluginError(ValueError):
    """Two plug-ins share a name, or one cannot be imported; names both, or the package that it is from."""


@dataclass(frozen=True, slots=True)
class Plugin:
    """A plug-in that can be imported."""

    name: str
    module: str
    package: str | None = None
    """The distribution that provides it, such as `my-package`; None: it is part of this project."""

    @property
    def origin(self) -> str:
        """Where it is, for messages."""
        return f"{self.module} ({f'package {self.package}' if self.package else 'part of this project'})"

    def load(self) -> ModuleType:
        """Imports it. Raises PluginError where a module of another package cannot be imported."""
        try:
            return import_module(self.module)
        except ImportError as error:
            if self.package is None:
                raise
            raise PluginError(
                f"{self.name} of package {self.package} cannot be imported: {error}; install what it needs, "
                f"or uninstall {self.package}"
            ) from error


@cache
def plugins(group: str, folder: str) -> Mapping[str, Plugin]:
    """Every plug-in of a group by name, sorted. Nothing is imported.

    Args:
        group: of entry points, such as `permafrost.codecs`.
        folder: of modules that are plug-ins by their names, such as `stores.codecs`. Packages within it and
            the module `contract` are none.

    Raises PluginError where two have one name.
    """
    paths = list(import_module(folder).__path__)
    found = {
        module.name: Plugin(module.name, f"{folder}.{module.name}")
        for module in pkgutil.iter_modules(paths)
        if not module.ispkg and module.name != "contract"
    }
    return dict(sorted({**found, **entry_plugins(group, found)}.items()))


def entry_plugins(group: str, taken: Mapping[str, Plugin]) -> dict[str, Plugin]:
    """The plug-ins that installed packages add to a group. Raises PluginError for a name that is taken."""
    found: dict[str, Plugin] = {}
    for entry in entry_points(group=group):
        new = Plugin(entry.name, entry.module, entry.dist.name if entry.dist else "of unknown name")
        other = taken.get(new.name) or found.get(new.name)
        if other == new:  # an editable install beside a regular one is listed twice
            continue
        if other is not None:
            raise PluginError(
                f"two plug-ins of {group} are named {new.name}: {other.origin} and {new.origin}; "
                "uninstall one"
            )
        found[new.name] = new
    return found


def package_of(group: str, name: str) -> str | None:
    """The package whose entry point provides a plug-in; None where it is part of this project, or unknown."""
    plugin = entry_plugins(group, {}).get(name)
    return None if plugin is None else plugin.package


def missing_package(package: object) -> str:
    """Advice for a plug-in that is absent: the package that provided it, where that was recorded.

    >>> missing_package("my-package"), missing_package(None)
    ('; it came from package my-package, which is not installed or no longer provides it', '')
    """
    if not isinstance(package, str):
        return ""
    return f"; it came from package {package[:100]}, which is not installed or no longer provides it"


def provided_by(package: str | None, field: str = "package") -> dict[str, str]:
    """The field of an identity that records another package; nothing for what is part of this project.

    >>> provided_by("my-package"), provided_by(None)
    ({'package': 'my-package'}, {})
    """
    return {} if package is None else {field: package}
