"""A large transfer beside small round trips, over the product's network on hosts with a slow link between them.

`bench/bulk.py` measures; here the order of the ways is what counts, not their times.
"""
import sys

import lan as lans

sys.path.insert(0, str(lans.ROOT / "bench"))

import bulk  # noqa: E402


def test_a_bulk_transfer_delays_round_trips_less_than_one_that_shares_their_connection(namespaces):
    for left in (2, 1, 0):  # a busy machine may be unfair to one of the two
        found = bulk.measure(bulk.QUEUES["long"], seconds=1.5, rounds=1)
        print(found)
        sooner = found["bulk"]["p50_ms"] < found["shared"]["p50_ms"]
        carries = found["bulk"]["transfer_bytes_per_s"] > 0.3 * found["shared"]["transfer_bytes_per_s"]
        if sooner and carries:
            break
        assert left, found
