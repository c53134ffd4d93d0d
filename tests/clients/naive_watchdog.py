"""The watchdog a user would write with python-can: for the benchmark, which measures how late it is.

A task per session sleeps until the deadline and sends the stop on a virtual bus. Prints how late each stop
was sent, nanoseconds, one a line; in its favour the time that sending takes is not counted.
"""

import asyncio
import sys
import time

import can

# Sessions and their window: all deadlines together come about once a millisecond.
SESSIONS = 32
WINDOW = 32_000_000
STOP = can.Message(arbitration_id=0x6D, data=bytes(8), is_extended_id=False)


async def watch(session, bus, end, late):
    last_heartbeat = time.monotonic_ns() + WINDOW // SESSIONS * session
    while last_heartbeat < end:
        deadline = last_heartbeat + WINDOW
        while (left := deadline - time.monotonic_ns()) > 0:
            await asyncio.sleep(left / 1e9)
        sent = time.monotonic_ns()
        bus.send(STOP)
        late.append(sent - deadline)
        last_heartbeat = sent


async def main():
    end = time.monotonic_ns() + int(sys.argv[1]) * 1_000_000
    late = []
    with can.Bus(interface="virtual", channel="bench") as bus:
        await asyncio.gather(*(watch(session, bus, end, late) for session in range(SESSIONS)))
    print("\n".join(map(str, late)))


asyncio.run(main())
