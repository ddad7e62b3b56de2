#!/bin/sh
# salvage.sh: after a guest died or nothing moved any more, sends what dom0 has.
. /lib/blkproof/agent/lib.sh
. /lib/blkproof/agent/collect.sh
read -r run < $WORK/run.pid && kill "$run"
read -r domid log_begin < $WORK/run.facts
mark salvage
stop_recording
snapshot gnttab.txt after.txt
send
