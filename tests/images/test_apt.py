import pytest
from blkproof.images import apt
from blkproof.images.apt import Mirror, host_mirror, resolve
from blkproof.images.errors import FetchError
from blkproof.images.lock import read_lock
from blkproof.images.recipe import load_recipe


@pytest.fixture
def sources(monkeypatch):
    """Let the test say what the host's apt would fetch: (address, release, component)."""

    def give(*rows):
        lines = (
            f"'{base}/dists/{name}/{part}/binary-amd64/Packages.xz' file 0 " for base, name, part in rows
        )
        monkeypatch.delenv("BLKPROOF_MIRROR", raising=False)
        monkeypatch.setattr(apt, "_host_codename", lambda: "bookworm")
        monkeypatch.setattr(apt, "_run", lambda _command: "\n".join(lines))

    return give


def test_security_files_come_from_the_security_archive():
    mirror = Mirror("http://m/debian", "http://m/debian-security")
    assert mirror.url("pool/main/a/a_1+b~c.deb") == "http://m/debian/pool/main/a/a_1%2bb%7ec.deb"
    assert mirror.url("pool/updates/main/a.deb") == "http://m/debian-security/pool/updates/main/a.deb"


def test_the_hosts_mirror_is_taken_and_third_parties_are_not(sources):
    sources(
        ("https://third/party", "nodistro", "main"),
        ("https://same/name", "bookworm", "main"),
        ("http://wrong/debian", "bookworm", "contrib"),
        ("http://m/debian", "bookworm", "main"),
        ("http://m/debian", "bookworm-updates", "main"),
        ("http://s/debian-security", "bookworm-security", "main"),
    )
    assert host_mirror() == Mirror("http://m/debian", "http://s/debian-security")


def test_without_security_sources_the_archive_beside_the_main_one_is_used(sources):
    sources(("http://m/debian", "stable", "main"))
    assert host_mirror() == Mirror("http://m/debian", "http://m/debian-security")


def test_a_host_without_a_mirror_says_what_to_set(sources):
    sources(("https://third/party", "nodistro", "main"))
    with pytest.raises(FetchError, match="no mirror for bookworm main: set BLKPROOF_MIRROR"):
        host_mirror()


def test_the_mirror_is_found_without_the_hosts_package_lists(monkeypatch):
    monkeypatch.delenv("BLKPROOF_MIRROR", raising=False)
    assert "://" in host_mirror().main


def test_the_environment_overrides_the_host(monkeypatch):
    monkeypatch.setenv("BLKPROOF_MIRROR", "http://a/debian/ http://b/sec")
    assert host_mirror() == Mirror("http://a/debian", "http://b/sec")


@pytest.mark.usefixtures("cache")
def test_resolving_without_a_network_is_one_clear_error(tiny_recipe, monkeypatch):
    monkeypatch.setenv("BLKPROOF_MIRROR", "http://127.0.0.1:1")
    with pytest.raises(
        FetchError, match=r"apt-get update failed: E: .*check the network, or set BLKPROOF_MIRROR"
    ):
        resolve(tiny_recipe, print)


@pytest.mark.usefixtures("cache", "mirror")
def test_an_archive_without_signature_is_not_trusted(tiny_recipe, pool):
    lists = pool.root / "dists/bookworm"
    lists.mkdir(parents=True)
    (lists / "Release").write_text("Suite: bookworm\nCodename: bookworm\nComponents: main\n")
    with pytest.raises(FetchError, match="is not signed"):
        resolve(tiny_recipe, print)


def test_backports_are_asked_for_when_a_recipe_names_packages_of_theirs(cache, tiny_recipe):
    def written(recipe):
        apt._options(recipe, Mirror("http://m/debian", "http://s"))
        return [(cache / "apt/bookworm" / name).read_text() for name in ("sources.list", "preferences")]

    sources, preferences = written(tiny_recipe)
    assert "backports" not in sources + preferences
    sources, preferences = written(tiny_recipe.model_copy(update={"backports": ("linux-*",)}))
    assert " http://m/debian bookworm-backports main\n" in sources
    assert preferences.startswith("Package: linux-*\nPin: release n=bookworm-backports\n")


def test_only_the_named_packages_came_from_backports():
    recipe = load_recipe("debian12-backports")
    backports = {p.name for p in read_lock(recipe.lock_path, recipe).packages if "~bpo12" in p.version}
    assert {"linux-image-amd64", "linux-source-6.12"} <= backports
    assert all(name.startswith("linux-") for name in backports)


def test_stanzas_of_one_version_in_two_archives_count_once():
    stanza = "Package: a\nVersion: 1\nArchitecture: all\nFilename: {}\nSize: 3\nSHA256: " + "0" * 64 + "\n"
    shown = stanza.format("pool/updates/a.deb") + "\n" + stanza.format("pool/a.deb") + "\n"
    assert [package.filename for package in apt._stanzas(shown)] == ["pool/updates/a.deb"]
