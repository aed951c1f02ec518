"""A quick extraction for the engines of clusters."""

from tests.pipelines.extraction.conftest import data, words

__all__ = ["data", "words"]
