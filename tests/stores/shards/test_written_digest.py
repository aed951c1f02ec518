"""A digest computed while a file is written equals that of the finished file."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from stores.shards import written_digest
from stores.shards.written_digest import WrittenDigest

CONTENT = bytes(range(256)) * 40
LENGTHS = (1000, 3000, 240, 6000)


@pytest.mark.parametrize("handed_over_bytes", [0, 2000, 1 << 20])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 1, 3), (1, 0, 2, 3), (0, 1), ()])
def test_pieces_in_any_order(order, handed_over_bytes, monkeypatch):
    monkeypatch.setattr(written_digest, "_HANDED_OVER_BYTES", handed_over_bytes)
    starts = [sum(LENGTHS[:i]) for i in range(len(LENGTHS))]
    read_back = []

    def read(length, offset):
        read_back.append(offset)
        return CONTENT[offset : offset + min(length, 700)]

    with ThreadPoolExecutor(1) as thread:
        digest = WrittenDigest(thread)
        for i in order:
            half = starts[i] + LENGTHS[i] // 2
            digest.take(starts[i], [CONTENT[starts[i] : half], CONTENT[half : starts[i] + LENGTHS[i]]])
            digest.wait()
        assert digest.finish(read) == (len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    in_order = next((n for n, i in enumerate(order) if i != n), len(order))
    assert read_back[0] >= sum(LENGTHS[:in_order]), "what came in order is not read again"
    if order == (0, 1, 2, 3):
        assert read_back == [len(CONTENT)]


def test_memory_may_be_reused_after_waiting():
    with ThreadPoolExecutor(1) as thread:
        digest, memory = WrittenDigest(thread), bytearray(5 << 20)
        total = hashlib.sha256()
        for value in range(3):
            memory[:] = bytes([value]) * len(memory)
            digest.take(value * len(memory), [memoryview(memory)])
            total.update(memory)
            digest.wait()
        assert digest.finish(lambda length, offset: b"") == (3 * len(memory), total.hexdigest())


def test_small_pieces_behind_a_large_one_wait_for_their_turn():
    """Frames that were held back are digested one after another, without a wait between them."""
    with ThreadPoolExecutor(1) as thread:
        digest, content = WrittenDigest(thread), bytes(1 << 20) + b"the end"
        digest.take(0, [content[: 1 << 20]])
        digest.take(1 << 20, [content[1 << 20 :]])
        assert digest.finish(lambda length, offset: b"")[1] == hashlib.sha256(content).hexdigest()
