"""The rows of the table. What waits most comes first, so that the lanes end at about the same time."""

from benchmarks.chaos import buckets, clocks, disks, flips, hosts, kills, starters, supervised
from benchmarks.chaos.trials import Row

SAME_BITS = "the same bits at the end"  # `Reference.check` compares them, and docs/survival.md says what they are.

ROWS: dict[str, Row] = {
    "crash_loop": Row(
        "a supervised run fails at each start",
        f"the supervisor gives up after {supervised.STARTS} starts",
        supervised.crash, trials=3, short=1, at_once=3,
    ),
    "kill_in_bucket": Row(
        "kill -9 at a random moment of a run in a bucket, again and again",
        f"{SAME_BITS}; no checkpoint is found damaged; the lease is gone at the end",
        kills.kill_in_bucket, trials=50, short=1, unit=5, at_once=10,
    ),
    "lose_host": Row(
        "one of 2 to 4 processes is killed, stopped (SIGSTOP), or cut off from the first one, at a random moment",
        f"the others leave within {hosts.LEAVE_SECONDS:.0f} s, and a stopped one when it wakes; then the run goes on with "
        f"another number of processes for the same devices: {SAME_BITS}; no checkpoint is found damaged",
        hosts.lose_host, trials=30, short=1, at_once=2,
    ),
    "bucket_down": Row(
        "the bucket is down at the start, in the middle or at the end, until the run gives up",
        f"one message, exit code 1; when the bucket is up again, the same command goes on, and {SAME_BITS}",
        buckets.be_down, trials=12, short=1, at_once=6,
    ),
    "bucket_faults": Row(
        "a fifth of all requests to the bucket are refused, or their answers are lost",
        f"if a run ends, it is with one message and exit code 1, and the same command goes on; {SAME_BITS}",
        buckets.fail_at_random, trials=10, short=1, at_once=5,
    ),
    "kill_on_disk": Row(
        "kill -9 at a random moment of a run on a disk, again and again",
        f"{SAME_BITS}; no checkpoint is found damaged",
        kills.kill_on_disk, trials=200, short=4, unit=10,
    ),
    "stop": Row(
        "SIGTERM at a random moment between the first step and the last",
        f"exit code 75, and the step that is named is saved; then {SAME_BITS}",
        kills.stop, trials=50, short=3, unit=5,
    ),
    "flip_bits": Row(
        "one bit of one file of the newest checkpoint flips, in each file in turns",
        "a resumed run and every reader get the saved values of this step or of an earlier one, bit for bit, or refuse to "
        "read; one flip in 50 is tried with train.py itself",
        flips.flip_bits, trials=500, short=25, unit=50,
    ),
    "starters_on_disk": Row(
        "so many processes start in one folder at once",
        "one has it, and each other is refused with a message",
        starters.start_on_disk, trials=64, short=16, unit=64,
    ),
    "starters_in_bucket": Row(
        "so many processes start under one path of a bucket at once",
        "one has it, and each other is refused with a message",
        starters.start_in_bucket, trials=64, short=16, unit=64,
    ),
    "disk_full": Row(
        "the disk is full, at a random write",
        f"one message, exit code 1; when there is room, the same command goes on, and {SAME_BITS}",
        disks.fill_disk, trials=30, short=2,
    ),
    "clock_jumps": Row(
        "the clock of each process (Python's time.time) jumps by up to a day in each half second, and the run is killed once",
        f"if a run ends, it is with one message and exit code 1, and the same command goes on; {SAME_BITS}",
        clocks.jump, trials=12, short=1, at_once=2,
    ),
    "other_code": Row(
        "one of two hosts has one line more in a file of the package",
        "both refuse to start, with the file and both values, exit code 2, and nothing is written",
        hosts.change_code, trials=6, short=1,
    ),
    "kill_supervised": Row(
        "kill -9 of a supervised run, again and again, each time after one more step is saved",
        f"it is started again each time; {SAME_BITS}",
        supervised.kill_supervised, trials=20, short=2, unit=5,
    ),
    "mistake": Row(
        "a supervised run has a mistake in its command",
        "exit code 2, and no second start",
        supervised.mistake, trials=3, short=1, at_once=3,
    ),
}  # fmt: skip
