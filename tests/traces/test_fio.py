"""fio's figures."""

import json
from pathlib import Path

import pytest
from blkproof.traces.errors import DecodeError
from blkproof.traces.fio import parse_result

from tests.writers.capture_writer import FIO


def test_jobs_are_summed_and_notes_before_the_json_skipped():
    text = "fio: this platform does not support process shared mutexes\n" + json.dumps(
        {"jobs": FIO["jobs"] * 2}
    )
    result = parse_result(text, Path("fio.json"))
    assert (result.read_ios, result.write_ios) == (20, 40)
    assert (result.read_bytes, result.write_bytes) == (81920, 163840)
    assert result.iops == 601
    assert (result.error, result.verify_failed) == (0, False)


def test_the_first_error_counts_and_a_failed_verify_is_told():
    jobs = [FIO["jobs"][0], FIO["jobs"][0] | {"error": 84}, FIO["jobs"][0] | {"error": 5}]
    result = parse_result(json.dumps({"jobs": jobs}), Path("fio.json"))
    assert (result.error, result.verify_failed) == (84, True)


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("", "fio did not end"),
        ("fio: killed\n", "fio did not end"),
        ("{", "Expecting"),
        ('{"jobs": 1}', "not"),
    ],
)
def test_what_is_no_result_is_one_clear_error(text: str, got: str):
    with pytest.raises(DecodeError, match=got) as caught:
        parse_result(text, Path("fio.json"))
    assert "\n" not in str(caught.value)
