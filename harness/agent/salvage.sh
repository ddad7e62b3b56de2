#!/bin/sh
# salvage.sh [GUEST_S]: after something died or nothing moved any more, sends what there is.  A guest that
# may live gets GUEST_S seconds to hand over its own.
. /lib/blkproof/agent/lib.sh
. /lib/blkproof/agent/collect.sh
read -r run < $WORK/run.pid && kill "$run"
read -r domid < $WORK/domid
read -r log_begin < $WORK/log_begin
mark salvage
stop_recording
[ -e $WORK/grants ] || grants gnttab_attached.txt
[ -e $OUT/xenstore/attached.txt ] || disk_in_xenstore attached.txt

if [ -n "${1-}" ] && read -r listener < $WORK/listener.pid; then
    xenstore-write "/local/domain/$domid/$KEYS/over" 1
    limit=$(($(uptime_s) + $1))
    while [ -e "/proc/$listener" ] && [ "$(uptime_s)" -lt $limit ]; do nap 0.05; done
fi
collect
send
