"""Patches in every shape in which they travel; no line of them is the kernel's."""

import base64
import gzip
import quopri
from email.message import EmailMessage
from pathlib import Path

import pytest
from blkproof.images.errors import DriverError
from blkproof.images.patches import read_patches
from hypothesis import given
from hypothesis import strategies as st

BLKBACK = "drivers/block/xen-blkback/blkback.c"
BLKFRONT = "drivers/block/xen-blkfront.c"


def diff(path=BLKBACK, old="one", new="two"):
    head = f"diff --git a/{path} b/{path}\nindex 1..2 100644\n--- a/{path}\n+++ b/{path}\n"
    return f"{head}@@ -1 +1 @@\n-{old}\n+{new}\n"


def letter(subject, body, encoding="8bit"):
    """Write a mail as git format-patch does, or as a mail server passes it on."""
    raw = f"{body}-- \n2.39.5\n\n".encode()
    coded = {
        "8bit": lambda: raw,
        "quoted-printable": lambda: quopri.encodestring(raw),
        "base64": lambda: base64.encodebytes(raw.replace(b"\n", b"\r\n")),
    }[encoding]()
    head = (
        "From 0123456789abcdef0123456789abcdef01234567 Mon Sep 17 00:00:00 2001\n"
        f"From: A Maintainer <maintainer@example.org>\nSubject: {subject}\n"
        f"Content-Type: text/plain; charset=UTF-8\nContent-Transfer-Encoding: {encoding}\n\n"
    )
    return head.encode() + coded


@pytest.fixture
def read(tmp_path):
    def read_it(data):
        path = tmp_path / "given.mbox"
        path.write_bytes(data)
        return read_patches(path)

    return read_it


def test_a_plain_diff_has_no_subject(read):
    (patch,) = read(b"what it is for: speed\n" + diff().encode())
    assert patch.subject == ""
    assert [change.path for change in patch.changes] == [BLKBACK]
    assert patch.changes[0].text == diff().encode()


@pytest.mark.parametrize("encoding", ["8bit", "quoted-printable", "base64"])
def test_a_series_is_read_in_its_order_without_its_cover_letter(read, encoding):
    series = [
        letter("[PATCH v2 0/2] make it fast", " one.c | 2 +-\n\n", encoding),
        letter("[PATCH v2 1/2] xen-blkback: für\n alle", f"From the start.\n---\n{diff()}", encoding),
        letter("[PATCH v2 2/2] xen-blkback: again", diff(old="two = é", new="three = \t"), encoding),
    ]
    first, second = read(b"".join(series))
    assert (first.subject, second.subject) == ("xen-blkback: für alle", "xen-blkback: again")
    assert first.changes[0].text == diff().encode()
    assert second.changes[0].text == diff(old="two = é", new="three = \t").encode()
    assert str(second).endswith('given.mbox: "xen-blkback: again"')


def test_one_saved_mail_needs_no_line_before_it(read):
    (patch,) = read(letter("[PATCH] x", diff()).split(b"\n", 1)[1])
    assert patch.subject == "x"


def test_an_mbox_may_be_compressed(read):
    whole = gzip.compress(letter("[PATCH] x", diff()))
    assert [patch.subject for patch in read(whole)] == ["x"]
    for broken in (whole[:-9], whole[:2] + b"junk", whole[:20] + b"junk" + whole[24:]):
        with pytest.raises(DriverError, match=r"given\.mbox: cannot be read as a patch: "):
            read(broken)


def test_a_patch_may_be_attached(read):
    message = EmailMessage()
    message["Subject"] = "[PATCH] attached"
    message["From"] = "a@example.org"
    message.set_content("see below\n")
    message.add_attachment(diff(), subtype="x-patch", filename="a.patch")
    (patch,) = read(message.as_bytes())
    assert (patch.subject, [c.path for c in patch.changes]) == ("attached", [BLKBACK])


def test_answers_in_a_thread_are_no_patches(read):
    thread = letter("[PATCH] x", diff()) + letter("Re: [PATCH] x", diff(new="better"))
    assert [patch.subject for patch in read(thread)] == ["x"]


def test_what_a_patch_does_to_each_file_stands_for_itself(read):
    text = (
        "diff --git a/drivers/block/xen-blkback/new.h b/drivers/block/xen-blkback/new.h\n"
        "new file mode 100644\nindex 0..1\n--- /dev/null\n+++ b/drivers/block/xen-blkback/new.h\n"
        "@@ -0,0 +1,2 @@\n+-- not a head\n+++ nor this\n"
        "diff --git a/drivers/block/xen-blkback/a.h b/drivers/block/xen-blkback/b.h\n"
        "similarity index 100%\nrename from drivers/block/xen-blkback/a.h\n"
        "rename to drivers/block/xen-blkback/b.h\n"
    )
    (patch,) = read((text + diff("Documentation/x.rst") + diff(BLKFRONT)).encode())
    assert [(change.path, change.strip) for change in patch.changes] == [
        ("drivers/block/xen-blkback/new.h", 1),
        ("drivers/block/xen-blkback/b.h", 0),
        ("Documentation/x.rst", 1),
        (BLKFRONT, 1),
    ]
    assert b"".join(change.text for change in patch.changes).decode() in text + diff(
        "Documentation/x.rst"
    ) + diff(BLKFRONT)


def test_a_file_is_found_below_any_directory(read):
    texts = f"--- {BLKBACK}\t2026-01-01\n+++ {BLKBACK}\t2026-01-02\n@@ -1 +1 @@\n-a\n+b\n"
    deep = texts.replace("drivers/", "my/linux-6.1/drivers/")
    assert [[(c.path, c.strip) for c in read(t.encode())[0].changes] for t in (texts, deep)] == [
        [(BLKBACK, 0)],
        [(BLKBACK, 2)],
    ]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "given.mbox: no patch"),
        (b"just words\n", "given.mbox: no patch"),
        (letter("[PATCH 0/1] cover", "only words\n"), "given.mbox: no patch"),
        (diff().replace("+two\n", "").encode(), r"given.mbox: malformed: the hunk @@ -1 \+1 @@ is cut off"),
        (
            letter("[PATCH] y", diff(new="a\nwrapped").replace("+1 @@", "+1,2 @@")),
            '"y": malformed: .* wrapped',
        ),
    ],
)
def test_what_is_no_patch_is_told(read, data, says):
    with pytest.raises(DriverError, match=says):
        read(data)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DriverError, match=r"absent\.patch: cannot be read as a patch: No such file"):
        read_patches(tmp_path / "absent.patch")


@given(st.binary(max_size=300), st.integers(0, 400))
def test_anything_else_is_a_patch_or_told(tmp_path_factory, noise, at):
    path: Path = tmp_path_factory.mktemp("noise") / "x"
    whole = letter("[PATCH] z", diff(), "quoted-printable")
    path.write_bytes(whole[:at] + noise + whole[at:])
    try:
        assert read_patches(path)
    except DriverError as error:
        assert str(path) in str(error)
