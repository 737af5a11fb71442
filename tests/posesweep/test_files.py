"""Files that are whole or not there."""

import json

import pytest

from posesweep.files import append_json_line, read_json, read_json_lines, read_record, replacing, write_json


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})

    def fail_midway():
        with replacing(file) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_midway()
    assert read_json(file) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_nan_is_not_json(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_a_torn_last_line_is_left_out(tmp_path):
    file = tmp_path / "rows.jsonl"
    append_json_line(file, {"a": 1})
    append_json_line(file, {"a": 2})
    file.write_bytes(file.read_bytes() + b'{"a": 3, "b"')
    assert read_json_lines(file) == [{"a": 1}, {"a": 2}]
    assert read_json_lines(file, lambda row: row["a"] > 1) == [{"a": 2}]
    assert read_json_lines(tmp_path / "none.jsonl") == []


def test_a_damaged_line_in_the_middle_is_an_error(tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(json.JSONDecodeError):
        read_json_lines(file)


def test_a_record_that_is_not_whole_is_none(tmp_path):
    file = tmp_path / "record.json"
    assert read_record(file) is None
    for text in ("", "{", "[1]", "null"):
        file.write_text(text)
        assert read_record(file) is None
    file.write_bytes(b"\xff\xfe")
    assert read_record(file) is None
    file.write_text('{"a": 1}')
    assert read_record(file) == {"a": 1}
