"""The `Media` of video data sets; see extract.datasets.contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from extract.decoding.decoder_pool import DecoderPool, decoder_pool
from extract.decoding.video_container import LIMIT_FRAMES, LIMIT_PX, ClipFacts
from extract.sources.byte_sources import ByteSource, FileSource, SourceError
from extract.sources.record import Record
from extract.sources.tar_index import TarMember
from extract.views.clip_view import CLIP_PARAMS, ClipView
from extract.views.view import View
from stores.format.row_table import UNDECODABLE

DECODER = (
    "decord or PyAV as each view says; frames by number in the order of showing; rotation of the container "
    "applied; no resize in the decoder"
)
"""Names the decoder in a store's identity. Versions are provenance."""
NOTHING_KNOWN = ClipFacts(hw=(1, 1), frames=1, fps=0.0, rotation=0, decoder="pyav")
"""For a video whose container cannot be read; it is skipped with its reason when it is decoded."""


class Videos:
    """Sources that are one video each; a `Media`."""

    view_params = CLIP_PARAMS

    def __init__(self, pool: DecoderPool | None = None) -> None:
        """Args: pool: of decoders; None: that of this process."""
        self._pool = pool

    @property
    def pool(self) -> DecoderPool:
        return self._pool or decoder_pool()

    @property
    def decoder(self) -> Mapping[str, Any]:
        return {"name": DECODER, "limit_px": LIMIT_PX, "limit_frames": LIMIT_FRAMES}

    def view_from_params(self, params: Sequence[float] | npt.NDArray[Any]) -> ClipView:
        return ClipView.from_params(params)

    def render(self, data: bytes, record: Record, views: Sequence[View]) -> list[npt.NDArray[np.uint8]]:
        clips = [view for view in views if isinstance(view, ClipView)]
        if len(clips) < len(views):
            raise TypeError("a video has views of the class ClipView only")
        if not data:
            raise SourceError(UNDECODABLE, "an empty file")
        return self.pool.render_video(data, record.original_hw, record.frames or 1, clips)

    def facts(self, source: ByteSource) -> ClipFacts:
        """What a video's container says, NOTHING_KNOWN where it cannot be used.

        Raises OSError where the source cannot be read.
        """
        try:
            if isinstance(source, TarMember):
                return self.pool.facts(source.tar, source.offset, source.size)
            if isinstance(source, FileSource):
                return self.pool.facts(source.path, 0, source.size)
        except SourceError:
            return NOTHING_KNOWN
        raise TypeError(f"videos are files or members of tars, found {type(source).__name__}")
