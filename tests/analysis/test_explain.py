"""Whole explanations: a change of words shows here, to be looked at."""

# ruff: noqa: E501 - a story is one literal

import pytest
from blkproof.analysis import history
from blkproof.analysis.check import judge
from blkproof.analysis.explain import explain
from blkproof.analysis.play import Play
from blkproof.analysis.registry import RULES

STORIES = {
    "R9": """\
R9 (MUST): A backend keeps grants mapped if, and only if, both sides wrote feature-persistent = 1.
Let
  B = backend/vbd/1/51712/feature-persistent = '1' (xs_write: literal @0x14, tsc 3100, dom0 cpu 0 pid 30)
  F = device/vbd/51712/feature-persistent = '0' (xs_write: literal @0x9, tsc 2000, guest1 cpu 0 pid 30)
  R0 = request id 0, write, taken from ring entry 0 (be_request: literal @0x25, tsc 4800, dom0 cpu 0 pid 700)
  L = look-up of grant 100 in the tree (be_get: literal @0x28, tsc 5100, dom0 cpu 0 pid 700)
  - only a backend that keeps grants looks them up, so it acts as if both had offered it
  - However, not both sides had written feature-persistent = 1: a contradiction!""",
    "R21": """\
R21 (MUST): Every request gets exactly one response with its id, and the ids of outstanding requests differ.
Let
  S3 = response id 3, write, status 0 (be_response: literal @0x38, tsc 6700, dom0 cpu 0 pid 0)
  - every request that the backend took was recorded, and nothing was lost
  - However, none of them that was outstanding has the id 3: a contradiction!""",
    "R31": """\
R31 (MUST): The segments of a request add up to the length that was asked for, inside the disk, and only reads go to a read-only disk.
Let
  Q0 = 24 sectors from 0, queued with id 0 at ring entry 0 (fe_queue: literal @0x20, tsc 4300, guest1 cpu 0 pid 1)
  R0 = request id 0, write, taken from ring entry 0 (be_request: literal @0x26, tsc 4900, dom0 cpu 0 pid 700)
  - Q0 and R0 are one request, because both stand at ring entry 0
  - Q0 asks for 24 sectors from 0
  - However, what the backend read in R0 are 8 sectors from 0: a contradiction!""",
    "R40": """\
R40 (MUST): Persistent grants are mapped writable; without them, pages that the backend only reads are mapped read-only and all others writable.
Let
  B = backend/vbd/1/51712/feature-persistent = '1' (xs_write: literal @0x14, tsc 3100, dom0 cpu 0 pid 30)
  F = device/vbd/51712/feature-persistent = '1' (xs_write: literal @0x9, tsc 2000, guest1 cpu 0 pid 30)
  R0 = request id 0, write, taken from ring entry 0 (be_request: literal @0x25, tsc 4800, dom0 cpu 0 pid 700)
  M100 = grant 100 mapped with flags 6, handle 40 (gt_map: literal @0x2c, tsc 5500, dom0 cpu 0 pid 700)
  - M100 was mapped for R0, because the thread that took R0 mapped it
  - it is one of the pages of a write, and grants are kept by the backend, which may need to write to them later, so its flags have to be 2
  - However, the flags of M100 are 6 (read-only): a contradiction!
  (2 findings of this kind; this is the first.)""",
    "R41": """\
R41 (MUST): Without persistent grants, every grant of a request is unmapped before its response.
Let
  R0 = request id 0, write, taken from ring entry 0 (be_request: literal @0x25, tsc 4800, dom0 cpu 0 pid 700)
  M100 = grant 100 mapped with flags 6, handle 40 (gt_map: literal @0x28, tsc 5100, dom0 cpu 0 pid 700)
  S0 = response id 0, write, status 0 (be_response: literal @0x2e, tsc 5700, dom0 cpu 0 pid 0)
  U = handle 40 is unmapped (gt_unmap: literal @0x33, tsc 6200, dom0 cpu 0 pid 0)
  - R0 < M100 < S0, and M100 was mapped for R0 alone
  - so it has to be unmapped before the frontend is told that it may use the page again
  - However, M100 was mapped at S0; it was unmapped only by U: a contradiction!""",
    "R42": """\
R42 (MUST): A kept grant is found when it is looked up, mapped only once, and unmapped only by a purge or at the end.
Let
  K = grant 100, handle 40: in the tree and not in use (be_put: literal @0x36, tsc 6500, dom0 cpu 0 pid 0)
  N = grant 100 mapped with flags 2, handle 42 (gt_map: literal @0x49, tsc 8400, dom0 cpu 0 pid 700)
  - the tree held grant 100 with handle 40, not in use
  - However, N maps it once more, as handle 42: a contradiction!""",
    "R43": """\
R43 (MUST): A kept grant is in use from its look-up until its request gives it back, before the response, and is never unmapped in between.
Let
  K = grant 100, handle 40: in the tree and in use (be_add_ret: literal @0x30, tsc 5900, dom0 cpu 0 pid 700)
  U = handle 40 is unmapped (gt_unmap: literal @0x47, tsc 8400, dom0 cpu 0 pid 30)
  - grant 100 was in use from K on, and not given back before U
  - However, U unmaps its handle 40: a contradiction!
  (2 findings of this kind; this is the first.)""",
    "R53": """\
R53 (MUST): When a device is closed, the backend has no grant of it mapped, and the frontend has ended all of them.
Let
  M100 = grant 100 mapped with flags 2, handle 40 (gt_map: literal @0x2c, tsc 5500, dom0 cpu 0 pid 700)
  X = the backend closes the device (xs_switch: literal @0x4a, tsc 8600, dom0 cpu 0 pid 30)
  - M100 < X, and all that was mapped has to be unmapped at X
  - However, handle 40 of M100 is never unmapped: a contradiction!""",
}


@pytest.mark.parametrize("name", STORIES)
def test_story(name):
    play = Play()
    RULES[name].breaks(play)
    play.close()
    verdict = judge(history.replay(play.table(), play.facts()))
    finding = [finding for finding in verdict.findings if finding.rule == name][-1]
    assert explain(finding) == STORIES[name]
    assert "\n" not in finding.text
