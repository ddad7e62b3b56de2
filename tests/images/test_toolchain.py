import re
from pathlib import Path

import pytest
from blkproof.images.errors import PackageError
from blkproof.images.toolchain import Toolchain


@pytest.fixture(params=["debian12", "debian13"])
def tools(request, tmp_path):
    recipe, tree = (request.getfixturevalue(f"{request.param}{part}") for part in ("", "_tree"))
    return Toolchain(tree, recipe.driver.compiler, tmp_path / "with space")


def test_each_program_runs_with_the_libraries_of_its_own_suite(tools):
    for tool in (tools.compiler, "as", "ld", "strip", "make", "patch", f"x86_64-linux-gnu-{tools.compiler}"):
        done = tools.run([tool, "--version"], tools.work)
        assert done.returncode == 0, (tool, done.stderr)


def test_the_compiler_uses_its_own_parts_and_headers(tools):
    for part in ("cc1", "as", "ld"):
        found = tools.run([tools.compiler, f"-print-prog-name={part}"], tools.work).stdout.decode().strip()
        assert found.startswith(f"{tools.work}/bin/")
    header = tools.run([tools.compiler, "-print-file-name=include/stdarg.h"], tools.work).stdout.decode()
    assert Path(header.strip()).is_file()
    assert "/trees/" in header


def test_programs_use_their_suites_libraries_and_the_hosts_shell_those_of_the_host(tools):
    (tools.work / "Makefile").write_text("shell:\n\t@cat /proc/$$$$/maps\nmake:\n\t@cat /proc/$$PPID/maps\n")
    mapped = {
        who: set(
            re.findall(r"/\S*libc\.so\.6", tools.run(["make", "--silent", who], tools.work).stdout.decode())
        )
        for who in ("shell", "make")
    }
    (of_make,) = mapped["make"]
    assert "/trees/" in of_make
    assert not any("/trees/" in path for path in mapped["shell"])
    assert mapped["shell"]


def test_a_place_where_nothing_may_be_started_is_told(tools):
    (tools.work / "bin/make").chmod(0o644)
    with pytest.raises(PackageError, match="bin: programs may not be started there: set TMPDIR"):
        tools.run(["make"], tools.work)


def test_programs_in_a_copied_directory_run_and_the_rest_stays(tools, debian13_tree, tmp_path):
    source = tmp_path / "scripts"
    source.mkdir()
    program = debian13_tree / "usr/bin/patch"
    (source / "program").write_bytes(program.read_bytes())
    (source / "program").chmod(0o755)
    (source / "text").write_text("#!/bin/sh\n")
    (source / "link").symlink_to("text")
    tools.copy(source, tmp_path / "copy")
    assert (tmp_path / "copy/text").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "copy/link").readlink() == Path("text")
    assert (tmp_path / "copy/program").read_bytes().startswith(b"#!/bin/sh")
