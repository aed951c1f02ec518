"""Threads that share images, and the pieces of one image."""

import threading
import time
from collections import Counter

import pytest
import torch

from extract.swin.image_threads import map_images, share


@pytest.fixture
def three_threads():
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.mark.parametrize("images", [1, 2, 3, 4, 7])
def test_every_piece_is_done_once_however_many_images_there_are(three_threads, images):
    done = Counter()

    def one(image):
        share(lambda piece: done.update([(image, piece)]), range(20))
        return image

    assert map_images(one, range(images)) == list(range(images))
    assert done == Counter({(image, piece): 1 for image in range(images) for piece in range(20)})


def test_idle_threads_help_and_compute_as_the_owner_does(three_threads):
    """Three pieces that wait for each other end only where three threads are at them at once."""
    meet, seen = threading.Barrier(3, timeout=20), {}

    def piece(_):
        meet.wait()
        seen[threading.get_ident()] = (torch.get_num_threads(), torch.is_inference_mode_enabled())

    def one(_):
        with torch.inference_mode():
            share(piece, range(3))

    map_images(one, [0])
    assert list(seen.values()) == [(1, True)] * 3


def test_threads_with_images_of_their_own_do_not_wait_for_each_other(three_threads):
    """As many images as threads, each with pieces: whoever helps must never be needed."""
    meet = threading.Barrier(3, timeout=20)

    def one(image):
        meet.wait()
        total = []
        share(total.append, range(image, image + 5))
        return sum(total)

    assert map_images(one, [0, 1, 2]) == [10, 15, 20]


@pytest.mark.parametrize("failing", [0, 19], ids=["the first piece", "the last piece"])
def test_the_error_of_a_piece_reaches_the_caller_and_stops_the_rest(three_threads, failing):
    begun = []

    def piece(number):
        begun.append(number)
        if number == failing:
            raise ValueError(f"piece {number}")
        time.sleep(0.005)

    with pytest.raises(ValueError, match=f"piece {failing}"):
        map_images(lambda _: share(piece, range(20)), [0])
    count = len(begun)
    assert count == 20 if failing else count < 20
    time.sleep(0.02)
    assert len(begun) == count, "pieces went on after the error was raised"
    assert map_images(lambda image: image + 1, [1, 2]) == [2, 3], "the threads are of use again"
