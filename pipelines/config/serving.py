"""Settings of `serve`."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipelines.config.fields import VerbConfig, marks

_LAST_PORT = 65535


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig(VerbConfig):
    """A folder of stores and runs, and where its pages are served."""

    root: str = "."
    """Folder that holds stores and runs, in it or up to four folders below; nothing outside is shown."""
    host: str = "127.0.0.1"
    """Address to listen on. Any other than this machine's own loopback takes a token, which is printed as
    part of the address to open."""
    port: int = field(default=8765, metadata=marks(least=0))
    """Port; 0: any free one."""

    def __post_init__(self) -> None:
        VerbConfig.__post_init__(self)  # not super(): slots make a new class of this one
        if self.port > _LAST_PORT:
            raise ValueError(f"port {self.port}: expected 0 to {_LAST_PORT}")
