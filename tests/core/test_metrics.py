import json
import struct

from tensorboardX.proto import event_pb2

from research.core.metrics import MetricWriter, read_metrics


def scalars_in_tensorboard(folder):
    """{(tag, step): value} of the event files: records of length, checksum, bytes, checksum."""
    found = {}
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            event, data = event_pb2.Event.FromString(data[12 : 12 + length]), data[16 + length :]
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return found


def test_the_same_scalars_go_to_json_lines_and_tensorboard(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write(1, {"train/loss": 2.5})
    writer.write_timing(1, {"timing/seconds": 4.0})
    writer.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1, "train/loss": 2.5}]
    assert read_metrics(tmp_path / "timing.jsonl") == [{"step": 1, "timing/seconds": 4.0}]
    assert scalars_in_tensorboard(tmp_path / "tensorboard") == {("train/loss", 1): 2.5, ("timing/seconds", 1): 4.0}


def test_going_on_drops_what_will_be_written_again(tmp_path):
    lines = [{"step": step, "train/loss": float(step)} for step in (1, 2, 3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step": 4, "train/lo')
    writer = MetricWriter(tmp_path, 2)
    writer.write(3, {"train/loss": 30.0})
    writer.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == [lines[0], lines[1], {"step": 3, "train/loss": 30.0}]


def test_an_inactive_writer_writes_nothing(tmp_path):
    writer = MetricWriter(tmp_path, 0, active=False)
    writer.write(1, {"train/loss": 2.5})
    writer.close()
    assert list(tmp_path.iterdir()) == []
