"""Random plays of both drivers that obey the protocol, and what recorders may lose of them."""

from blkproof.analysis import wire
from blkproof.analysis.play import Play
from blkproof.traces.stream import FOREVER, LossWindow
from hypothesis import assume
from hypothesis import strategies as st

OPERATIONS = [wire.READ, wire.WRITE, wire.FLUSH]
MOST_OUTSTANDING = 8
THREAD = 700


class InterruptedPlay(Play):
    """A play in which bios end inside the mapping of other requests, with the pid of that thread."""

    def __init__(self):
        super().__init__()
        self.due = []
        self.inside = False

    def _emit(self, event, *args, **fields):
        super()._emit(event, *args, **fields)
        if self.due and not self.inside and event in {"be_map", "be_get_ret", "be_indirect", "gt_map"}:
            self.inside, self.interrupted = True, THREAD
            self.respond(self.due.pop())
            self.inside, self.interrupted = False, 0


@st.composite
def plays(draw):
    play = InterruptedPlay().set(
        cap=draw(st.sampled_from([0, 1, 5, 1056])),
        max_indirect=draw(st.sampled_from([0, 32, 256])),
        interrupted=draw(st.sampled_from([0, THREAD])),
        sector_size=draw(st.sampled_from([512, 4096])),
        max_order=4,
        trusted=draw(st.sampled_from("YN")),
    )
    if draw(st.booleans()):
        play.set(order=1, nr_ents=64)
    for side in ("front", "back"):
        on = draw(st.booleans())
        play.set(**{f"{side}_offer": int(on), f"{side}_parameter": "Y" if on else "N"})
    pushed, mapped, answered = [], [], []
    for _ in range(draw(st.integers(10, 40))):
        step = draw(st.integers(0, 7))
        if step == 0 and len(pushed) + len(mapped) + len(answered) < MOST_OUTSTANDING:
            op = draw(st.sampled_from(OPERATIONS))
            most = play.max_indirect if play.max_indirect and op != wire.FLUSH else 11
            pushed.append(play.push(op, draw(st.integers(0 if op == wire.FLUSH else 1, most))))
        elif step == 1 and pushed:
            if mapped and draw(st.booleans()):
                play.due.append(mapped.pop(draw(st.integers(0, len(mapped) - 1))))
                answered += play.due
            io = pushed.pop(0)
            play.take(io)
            play.map(io)
            while play.due:
                play.respond(play.due.pop())
            mapped.append(io)
        elif step == 2 and mapped:
            io = mapped.pop(draw(st.integers(0, len(mapped) - 1)))
            play.respond(io)
            answered.append(io)
        elif step == 3 and answered:
            play.complete(answered.pop(0))
        elif step == 4 and play.tree:
            idle = sorted(play.tree.keys() - play.active)
            play.purge(draw(st.lists(st.sampled_from(idle), unique=True)) if idle else [])
        elif step == 5 and not pushed + answered:
            play.discard(8 * draw(st.integers(1, 100)))
        elif step == 7:
            play.recall()
        elif step == 6 and play.connected:
            play.resize(play.capacity + draw(st.integers(1, 100)) * 8)
    for io in pushed:
        play.take(io)
        play.map(io)
    for io in (*mapped, *pushed):
        play.respond(io)
    for io in (*answered, *mapped, *pushed):
        play.complete(io)
    return play.close()


def lose_stretch(draw, play):
    """Leave out some records of one source that follow each other, and say so."""
    source = draw(st.sampled_from(["dom0", "guest1", "xen"]))
    own = [number for number, row in enumerate(play.rows) if row[2]["source"] == source]
    if not own:
        return
    first = draw(st.integers(0, len(own) - 1))
    last = min(first + draw(st.integers(0, 12)), len(own) - 1)
    begin = play.rows[own[first - 1]][1] if first else 0
    end = play.rows[own[last + 1]][1] if last + 1 < len(own) else FOREVER
    lost = set(own[first : last + 1])
    play.losses.append(LossWindow(source, -1, begin, end, len(lost), "literal", 0))
    play.rows = [row for number, row in enumerate(play.rows) if number not in lost]


def lose_kind(draw, play):
    """Leave out some records of one kind, as a probe that missed does, and say so."""
    assume(play.rows)
    kind = draw(st.sampled_from(sorted({row[0] for row in play.rows})))
    own = [number for number, row in enumerate(play.rows) if row[0] == kind]
    lost = set(draw(st.lists(st.sampled_from(own), min_size=1, max_size=5, unique=True)))
    for source in sorted({play.rows[number][2]["source"] for number in lost}):
        play.losses.append(LossWindow(source, -1, 0, FOREVER, len(lost), "literal", 0, kind))
    play.rows = [row for number, row in enumerate(play.rows) if number not in lost]
