"""The waiting line: first come, first served, and everybody sees their place."""

from __future__ import annotations

import threading

from engine.runtime.line import Line


def test_places_move_up_as_others_leave() -> None:
    line = Line()
    first, second, third = line.join(), line.join(), line.join()
    assert [line.position(t) for t in (first, second, third)] == [0, 1, 2]
    line.leave(second)
    assert line.position(third) == 1
    line.leave(first)
    assert line.position(third) == 0
    line.leave(first)  # leaving twice is harmless
    assert len(line) == 1


def test_whoever_goes_on_does_not_wait_again() -> None:
    line = Line(2)
    served, waiting, last = [line.join() for _ in range(2)], line.join(), line.join()
    line.leave(served[0])
    assert [line.position(t) for t in (waiting, last)] == [0, 1]  # the place is taken in between
    again = line.join(again=True)
    assert line.position(again) == 0
    line.leave(served[1])
    assert line.position(last) == 1  # there was one more than there are places
    line.leave(again)
    assert line.position(last) == 0


def test_a_waiting_ticket_is_woken_when_the_line_moves() -> None:
    line = Line()
    first, second = line.join(), line.join()
    seen: list[int] = []
    waiter = threading.Thread(target=lambda: seen.append(line.position(second, wait_seconds=60)))
    waiter.start()
    line.leave(first)
    waiter.join(30)
    assert seen == [0]


def test_only_one_is_served_at_a_time() -> None:
    line, inside, most = Line(), [0], [0]
    guard = threading.Lock()

    def work() -> None:
        ticket = line.join()
        while line.position(ticket, wait_seconds=5):
            pass
        with guard:
            inside[0] += 1
            most[0] = max(most[0], inside[0])
        with guard:
            inside[0] -= 1
        line.leave(ticket)

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert most == [1] and len(line) == 0


def test_turns_are_taken_in_order_and_given_up() -> None:
    line = Line()
    order: list[str] = []
    with line.turn() as ours:
        assert ours
        threads = []
        for name in ("a", "b"):
            threads.append(threading.Thread(target=lambda n=name: taken(line, order, n)))
            threads[-1].start()
            while len(line) < 1 + len(threads):
                pass
        with line.turn(lambda: True) as given_up:
            assert not given_up and len(line) == 4
        assert order == []
    for thread in threads:
        thread.join(30)
    assert order == ["a", "b"] and len(line) == 0


def taken(line: Line, order: list[str], name: str) -> None:
    with line.turn() as ours:
        assert ours
        order.append(name)
