"""No rule blames anybody for a record that was lost, in the scene that obeys it."""

import pytest
from blkproof.analysis import history
from blkproof.analysis.check import judge
from blkproof.analysis.play import Play
from blkproof.analysis.registry import RULES
from blkproof.traces.stream import FOREVER, LossWindow

JUDGED = [name for name, rule in RULES.items() if rule.check]


def played(name):
    play = Play()
    RULES[name].obeys(play)
    return play.close()


def judged(play):
    return judge(history.replay(play.table(), play.facts()))


@pytest.mark.parametrize("name", JUDGED)
def test_a_lost_record_of_what_a_rule_uses(name):
    rows = played(name).rows
    for kind in sorted(RULES[name].needs | RULES[name].also):
        numbers = [number for number, row in enumerate(rows) if row[0] == kind]
        for number in {*numbers[:1], *numbers[-1:]}:
            play = played(name)
            _, _, fields = play.rows.pop(number)
            play.losses.append(LossWindow(fields["source"], -1, 0, FOREVER, 1, "literal", 0, kind))
            assert judged(play).findings == (), (kind, number)


@pytest.mark.parametrize("source", ["dom0", "guest1"])
@pytest.mark.parametrize("name", JUDGED)
def test_a_lost_stretch(name, source):
    rows = played(name).rows
    own = [number for number, row in enumerate(rows) if row[2]["source"] == source]
    for part in range(8):
        first, last = part * len(own) // 8, (part + 1) * len(own) // 8
        lost = set(own[first:last])
        begin = rows[own[first - 1]][1] if first else 0
        end = rows[own[last]][1] if last < len(own) else FOREVER
        play = played(name)
        play.losses.append(LossWindow(source, -1, begin, end, len(lost), "literal", 0))
        play.rows = [row for number, row in enumerate(play.rows) if number not in lost]
        assert judged(play).findings == (), part
