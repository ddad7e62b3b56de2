"""What the pictures are drawn from."""

from blkproof.analysis.report.pictures import _over_time


def test_curves_of_a_run_share_their_end(make_run):
    """The last thing that a curve tells holds on to the end of the run."""
    run = make_run()
    tree = _over_time(run, run.verdict.metrics.tree)
    outstanding = _over_time(run, run.verdict.metrics.outstanding)
    assert (tree.x[0], outstanding.x[0]) == (0, 0)
    assert tree.x[-1] == outstanding.x[-1] == 8_000_000
    assert outstanding.y[-1] == run.verdict.metrics.outstanding.value[-1]
