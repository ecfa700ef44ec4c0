"""TensorBoard itself reads what metrics/tensorboard.cc writes: the files that launch_test leaves are loaded and compared.

Usage: tensorboard_reads.py LAUNCH_TEST. Runs with the packages that tests/python.sh installed, when it did; exits with 77
(skipped) where Python has no tensorboard package.
"""
import os
import subprocess
import sys
import tempfile

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", "..", ".."))
INSTALLED = os.path.join(ROOT, "build", "python", "bin", "python")
if os.path.exists(INSTALLED) and os.path.abspath(sys.prefix) != os.path.join(ROOT, "build", "python"):
    os.execv(INSTALLED, [INSTALLED, "-B", *sys.argv])

try:
    from tensorboard.backend.event_processing import event_accumulator, event_file_loader
    from tensorboard.compat.proto.event_pb2 import SessionLog
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)


def scalars(directory):
    accumulator = event_accumulator.EventAccumulator(directory, size_guidance={event_accumulator.SCALARS: 0})
    accumulator.Reload()
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
            for tag in accumulator.Tags()["scalars"]}


def single(value):
    """The nearest float32."""
    import struct
    return struct.unpack("f", struct.pack("f", value))[0]


def main(launch_test):
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, TEST_TMPDIR=folder)
        subprocess.run([launch_test, "--gtest_filter=Tensorboard.*"], env=environment, check=True,
                       stdout=subprocess.DEVNULL)

        # Written by Tensorboard.AnotherReaderReadsWhatIsWritten.
        expected = {"train/loss": [(1, 8.25), (1 << 40, single(1e30))],
                    "train/learning_rate": [(1, single(3e-4))],
                    "t" * 300: [(1, -1.0)]}
        found = scalars(os.path.join(folder, "tensorboard_reads"))
        assert found == expected, found

        # Written by Tensorboard.AResumedRunReplacesItsLaterSteps: steps 1 to 6, resumed from 4, steps 5 to 8.
        found = scalars(os.path.join(folder, "tensorboard_replaces"))
        expected = [(step, float(step)) for step in range(1, 5)] + [(step, step + 100.0) for step in range(5, 9)]
        assert found == {"train/loss": expected}, found

        # Written by Tensorboard.AResumeIsALaterFileThatStartsASession.
        resumed = os.path.join(folder, "tensorboard_resume")
        last = os.path.join(resumed, sorted(os.listdir(resumed))[-1])
        events = list(event_file_loader.EventFileLoader(last).Load())
        assert [event.step for event in events] == [0, 41], events
        assert events[0].file_version == "brain.Event:2", events[0]
        assert events[1].session_log.status == SessionLog.START, events[1]
    print("tensorboard reads all of it")


if __name__ == "__main__":
    main(sys.argv[1])
