#!/bin/sh
# salvage.sh: after a guest died or nothing moved any more, sends what dom0 has.
. /lib/blkproof/agent/lib.sh
. /lib/blkproof/agent/collect.sh
read -r run < $WORK/run.pid && kill "$run"
read -r domid < $WORK/domid
read -r log_begin < $WORK/log_begin
mark salvage
stop_recording
collect
send
