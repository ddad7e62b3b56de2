"""Single changes to a recorded history, each of which one rule has to find.

A mutation takes rows ``(event, tsc, fields)``, as literal tables have them, and changes them in place.  The
mode says in which histories its victim occurs: with persistent grants (``kept``) or without (``ended``).
"""

from collections.abc import Callable
from dataclasses import dataclass

from blkproof.analysis import wire


@dataclass(frozen=True)
class Mutation:
    name: str
    mode: str
    rule: str
    change: Callable[[list], None]


def always(_fields):
    return True


def rows(history, event, where=always):
    return [number for number, row in enumerate(history) if row[0] == event and where(row[2])]


def middle(history, event, where=always):
    """Pick one row away from both ends, where a lone difference must not hide."""
    found = rows(history, event, where)
    return found[len(found) // 2]


def put(event, where=always, **changed):
    def change(history):
        history[middle(history, event, where)][2].update(changed)

    return change


def drop(event, where=always):
    def change(history):
        del history[middle(history, event, where)]

    return change


def again(event):
    def change(history):
        number = middle(history, event)
        name, tsc, fields = history[number]
        history.insert(number + 1, (name, tsc + 1, dict(fields)))

    return change


def words(event, where, index, change_word):
    def change(history):
        fields = history[middle(history, event, where)][2]
        name = {"be_request": "seg", "be_indirect": "seg", "fe_page": "page"}.get(event, "ops")
        array = list(fields[name])
        array[index] = change_word(array[index])
        fields[name] = tuple(array)

    return change


def before_unmap(history):
    """Write a response before the unmap that goes with it."""
    for number in rows(history, "be_response"):
        unmaps = [n for n in range(number - 1, max(number - 9, 0), -1) if history[n][0] == "gt_unmap"]
        if unmaps and history[unmaps[0]][2]["n"]:
            name, _, fields = history.pop(number)
            history.insert(unmaps[0], (name, history[unmaps[0]][1] - 1, fields))
            return
    raise AssertionError("no response follows an unmap")


def same_gref(history):
    number = middle(history, "be_request", lambda f: f["op"] != wire.INDIRECT and f["nr"] >= 2)
    segments = list(history[number][2]["seg"])
    segments[1] = segments[0]
    history[number][2]["seg"] = tuple(segments)


def stuck_producer(history):
    for number in rows(history, "be_response")[3:]:
        history[number][2]["rsp_prod_pvt"] = 3


def never_ended(history):
    gref = history[middle(history, "gt_end")][2]["ref"]
    ends = {"gt_end", "gt_put_free"}
    history[:] = [row for row in history if row[0] not in ends or row[2]["ref"] != gref]


def of_request(fields):
    return fields["ref"] >= 100


def reused_write(fields):
    return fields["op"] == wire.WRITE and fields["req_prod_pvt"] > 30


def segment_of(event, gref):
    def change(history):
        for name in (event, "be_request"):
            fields = history[middle(history, name, direct(wire.WRITE))][2]
            fields["seg"] = (gref, *tuple(fields["seg"])[1:])

    return change


def ended_early(history):
    """Let the frontend free a grant just before the response to the request that uses it."""
    number = middle(history, "be_response", lambda f: f["op"] == wire.WRITE)
    taken = [n for n in rows(history, "be_request", direct(wire.WRITE)) if n < number][-1]
    gref = history[taken][2]["seg"][0] & 0xFFFFFFFF
    freed = {"source": "guest1", "pid": 0, "ref": gref}
    history.insert(number, ("gt_put_free", history[number][1] - 50, freed))


def forgotten(history):
    gref = history[middle(history, "gt_try_end")][2]["ref"]
    history[:] = [row for row in history if row[0] != "gt_try_end" or row[2]["ref"] != gref]


def still_mapped(history):
    del history[min(n for n in rows(history, "gt_put_free") if n > middle(history, "gt_try_end"))]


def late_end(history):
    """Let a bio end only after its request was answered."""
    number = middle(history, "be_io_end")
    answered = next(n for n in rows(history, "be_response") if n > number)
    name, _, fields = history.pop(number)
    history.insert(answered, (name, history[answered - 1][1] + 10, fields))


def always_missing(history):
    """Let a look-up that hits miss."""
    put("be_get_ret", lambda f: f["pgnt"], pgnt=0)(history)


def direct(op, least=1):
    return lambda f: f["op"] == op and f["nr"] >= least


def indirect(f):
    return f["op"] == wire.INDIRECT


MUTATIONS = [
    Mutation("response lost", "kept", "R21", drop("be_response")),
    Mutation("response twice", "kept", "R21", again("be_response")),
    Mutation("response to another id", "ended", "R21", put("be_response", id=31)),
    Mutation("another id on the ring", "ended", "R21", put("be_request", id=31)),
    Mutation("operation 6 in a response", "kept", "R22", put("be_response", op=wire.INDIRECT)),
    Mutation("status -2 of a read", "kept", "R22", put("be_response", lambda f: f["op"] == 0, status=-2)),
    Mutation("status 1", "ended", "R22", put("be_response", status=1)),
    Mutation("no segments", "kept", "R29", put("be_request", direct(wire.WRITE), nr=0)),
    Mutation("12 direct segments", "ended", "R29", put("be_request", direct(wire.READ), nr=12)),
    Mutation("last_sect 8", "kept", "R30", words("be_request", direct(wire.WRITE), 0, lambda w: w | 8 << 40)),
    Mutation("one segment fewer", "kept", "R31", put("be_request", direct(wire.WRITE, 2), nr=1)),
    Mutation("another sector", "ended", "R31", put("be_request", direct(wire.READ), sector=7)),
    Mutation("indirect flush", "ended", "R32", put("be_request", indirect, indirect_op=wire.FLUSH)),
    Mutation("another indirect page", "kept", "R32", put("be_request", indirect, indirect_gref=(9999,))),
    Mutation("too many indirect", "kept", "R12", put("be_request", indirect, indirect_nr=257)),
    Mutation("ring of 64", "kept", "R18", put("be_request", nr_ents=64)),
    Mutation("overfull ring", "kept", "R19", put("fe_queue", rsp_cons=2**32 - 32)),
    Mutation("producer jumps", "ended", "R20", put("be_response", rsp_prod_pvt=2**20)),
    Mutation("producer stuck", "ended", "R20", stuck_producer),
    Mutation("rsp_prod beyond the ring", "kept", "R20", put("fe_irq", s_rsp_prod=2**20)),
    Mutation("written over", "kept", "R23", put("be_request", direct(wire.WRITE), handle=9)),
    Mutation(
        "another segment in the page", "ended", "R23", words("fe_page", lambda f: f["nr"], 0, lambda w: w ^ 1)
    ),
    Mutation("granted read-only", "kept", "R39", put("gt_grant", lambda f: f["source"] == "guest1", ro=1)),
    Mutation("kept read-only", "kept", "R40", words("gt_map", lambda f: f["n"], 1, lambda w: w | 4)),
    Mutation("read-only for a read", "ended", "R40", words("gt_map", lambda f: f["n"], 1, lambda w: w ^ 4)),
    Mutation("answered before the unmap", "ended", "R41", before_unmap),
    Mutation("unmap forgotten", "ended", "R41", drop("gt_unmap", lambda f: f["n"])),
    Mutation("frontend finds it mapped", "ended", "R41", drop("gt_put_free")),
    Mutation("look-up misses", "kept", "R42", always_missing),
    Mutation(
        "found under another handle", "kept", "R42", put("be_get_ret", lambda f: f["pgnt"], handle=7777)
    ),
    Mutation("never put back", "kept", "R43", drop("be_put")),
    Mutation("put back twice", "kept", "R43", put("be_put", active=0)),
    Mutation("in use at the end", "kept", "R43", put("be_free_persistent", in_use=1)),
    Mutation("tree over its limit", "kept", "R44", put("be_map", pgc=9999)),
    Mutation("grant twice", "kept", "R47", same_gref),
    Mutation(
        "unmap refused", "ended", "R52", words("gt_unmap", lambda f: f["n"], 2, lambda w: w | 0xFFFD << 32)
    ),
    Mutation("left mapped", "kept", "R53", drop("gt_unmap", lambda f: f["n"])),
    Mutation("left granted", "kept", "R53", never_ended),
    Mutation("data not copied", "kept", "R38", put("fe_push", reused_write, copy=0)),
    Mutation("read into a page that is not copied from", "kept", "R38", put("fe_connect", bounce=0)),
    Mutation("a backend that is not trusted sees it all", "ended", "R50", put("fe_connect", trusted=0)),
    Mutation("granted to another domain", "ended", "R38", put("gt_grant", of_request, dom=7)),
    Mutation("ended before the response", "kept", "R38", ended_early),
    Mutation("frontend forgets a grant", "ended", "R48", forgotten),
    Mutation("frontend goes on with a mapped page", "ended", "R48", still_mapped),
    Mutation("freed while mapped", "kept", "R49", ended_early),
    Mutation("kept grants are miscounted", "kept", "R46", put("fe_queue", pgc=99)),
    Mutation("reserved grant", "kept", "R46", segment_of("fe_push", 3)),
    Mutation("bio failed", "kept", "R37", put("be_io_end", error=10)),
    Mutation("answered before its bio ends", "ended", "R37", late_end),
    Mutation("one bio more", "kept", "R37", put("be_submit", nbio=2)),
    Mutation("flush not passed on", "kept", "R36", put("be_submit", lambda f: f["opf"] >> 18, opf=1)),
    Mutation("another place on the disk", "kept", "R14", put("be_submit", sector=12345)),
    Mutation("another device", "kept", "R34", put("be_request", direct(wire.READ), handle=0)),
    Mutation("flush for a read", "ended", "R13", put("fe_queue", lambda f: f["flags"] == 2, flags=0)),
    Mutation(
        "segments outside are carried out",
        "kept",
        "R33",
        words("be_indirect", always, 1, lambda word: word + 8),
    ),
    Mutation(
        "maps another ring",
        "kept",
        "R5",
        put("gt_map_ring", gref=77),
    ),
    Mutation(
        "advertises what was not set",
        "ended",
        "R10",
        put("xs_write", lambda f: f["node"] == "feature-persistent" and f["value"] == "0", value="1"),
    ),
    Mutation(
        "keeps what was not offered",
        "kept",
        "R9",
        put("xs_write", lambda f: f["node"] == "feature-persistent", value="0"),
    ),
]
