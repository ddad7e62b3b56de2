"""What the pictures are drawn from."""

from blkproof.analysis.report.pictures import groups


def test_curves_of_a_run_share_their_end(make_run):
    """The last thing that a curve tells holds on to the end of the run, so both pictures end together."""
    figures = {group["title"]: group["plots"] for group in groups([make_run()])}
    ends = set()
    for title in ("Persistent grants held by the backend", "Requests outstanding on the ring"):
        (plot,) = figures[title]
        points = plot.picture.split('points="')[1].split('"')[0]
        ends.add(points.split()[-1].split(",")[0])
    assert len(ends) == 1
