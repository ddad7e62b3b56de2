"""Whole verdicts on other images than debian12, which all other live tests take.

debian13 is always taken; the others, whose packages are new and large downloads every few days, with
`pytest -m images`.
"""

import pytest
from blkproof.analysis.check import check
from blkproof.analysis.verdict import Outcome
from blkproof.harness import session
from blkproof.harness.accel import probe
from blkproof.harness.scenario import load_scenario
from blkproof.images.build import build
from blkproof.images.recipe import load_recipe
from blkproof.traces.capture import Capture

pytestmark = pytest.mark.live

OTHERS = ["debian12-backports", "sid"]


@pytest.fixture(
    scope="module", params=["debian13", *(pytest.param(name, marks=pytest.mark.images) for name in OTHERS)]
)
def verdict(request, tmp_path_factory):
    """Return a function that runs the scenario `basic` on an image and judges it."""
    image = build(load_recipe(request.param), progress=print, relock_if_stale=True)
    accelerator = probe(image)

    def run(**settings):
        out = tmp_path_factory.mktemp("run") / "capture"
        session.run(
            load_scenario("basic"), settings, image=image, accelerator=accelerator, out=out, progress=print
        )
        capture = Capture.open(out)
        found = check(capture)
        assert found.outcome is Outcome.PASS, (found.findings, found.reasons)
        assert found.requests > 1000
        for rule in found.rules.values():
            assert rule.decided == rule.checked, rule
        for observed in found.metrics.observed:
            assert observed.agree, observed
        seen_by_xen = {observed.what for observed in found.metrics.observed if observed.xen}
        assert seen_by_xen == {"grants mapped", "grants unmapped", "grants mapped at rest"}
        assert any(change.path.endswith("/51712/state") for change in capture.xenstore_changes())
        return found

    return run


def test_persistent_grants_are_mapped_once(verdict):
    found = verdict(persistent="on").metrics
    assert found.maps_per_request < 1
    assert found.hit_share > 0.9


def test_without_persistent_grants_each_segment_is_mapped(verdict):
    found = verdict(persistent="off").metrics
    assert found.maps_per_request >= found.segments_per_request
    assert found.lookups == 0


def test_two_queues_with_rings_of_four_pages_are_agreed_on(verdict):
    assert verdict(queues="2", ring_order="2").metrics.nr_ents == 4 * 32
