#!/bin/sh
# silence.sh GUEST_ADDRESS WHO...: takes away the probes of dom0 or of the guest, or ends Xen's own trace, so
# that it can be told what they cost.  Marks are recorded all the same.
. /lib/blkproof/agent/lib.sh
address=$1
shift
for who; do
    case $who in
    xen)
        read -r xentrace < $WORK/xentrace.pid
        kill "$xentrace"
        while [ -e "/proc/$xentrace" ]; do nap 0.01; done
        ;;
    dom0) disarm dom0 || exit 1 ;;
    guest)
        printf '. %s/lib.sh\ndisarm guest && echo blkproof-disarmed\n' $AGENT | nc "$address" 4000 > $WORK/silence.log
        if ! grep -q blkproof-disarmed $WORK/silence.log; then
            cat $WORK/silence.log >&2
            exit 1
        fi
        ;;
    *) exit 64 ;;
    esac
done
