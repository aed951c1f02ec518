"""Test stores of videos by the names of their views, those of earlier versions among them."""

import pytest

from pipelines.catalog.choose_store import has_views


@pytest.mark.parametrize(
    ("recorded", "views", "has"),
    [
        ({"recipe": "4x3", "places": "segments"}, "4x3", True),
        ({"recipe": "4x3"}, "4x3", True),
        ({"recipe": "4x3"}, "4x3-ends", True),
        ({"recipe": "4x3", "places": "segments"}, "4x3-ends", False),
        ({"recipe": "single"}, "single-ends", True),
        ({"recipe": "single"}, "4x3-ends", False),
        ({"recipe": "ms-flip"}, "ms-flip", True),
        ({"recipe": "ms-flip"}, "single", False),
    ],
)
def test_which_stores_have_which_views(recorded: dict[str, str], views: str, has: bool) -> None:
    assert has_views(recorded, views) is has
