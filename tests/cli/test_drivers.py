"""Which drivers take the place of the rebuilt ones; none is built here."""

from types import SimpleNamespace

import pytest
from blkproof.cli.drivers import REBUILT, STOCK, built
from blkproof.images import build, drivers, stock


@pytest.mark.parametrize(
    ("base", "wanted", "taken"),
    [
        (REBUILT, [], {}),
        (REBUILT, ["xen_blkback"], {"xen_blkback": "own"}),
        (STOCK, [], {"xen_blkback": "stock", "xen_blkfront": "stock"}),
        (STOCK, ["xen_blkback"], {"xen_blkback": "own", "xen_blkfront": "stock"}),
    ],
)
def test_stock_drivers_are_taken_but_where_there_is_one_of_the_users_own(monkeypatch, base, wanted, taken):
    monkeypatch.setattr(build, "package_tree", lambda _recipe, **_: None)
    monkeypatch.setattr(stock, "stock_drivers", lambda *_: {"xen_blkback": "stock", "xen_blkfront": "stock"})
    monkeypatch.setattr(drivers, "build_variants", lambda *args: {each.driver: "own" for each in args[-1]})
    assert built(None, base, [SimpleNamespace(driver=name) for name in wanted], print) == taken
