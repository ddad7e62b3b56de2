#!/bin/sh
# run.sh GUEST ADDRESS BACK_PARAMETERS FRONT_PARAMETERS STALL_S < JOB: one scenario, from the parked state
# to a tar of all evidence in the port blkproof.bulk.  What it says: see say() and phase().
. /lib/blkproof/agent/lib.sh
. /lib/blkproof/agent/collect.sh
guest=$1 address=$2 back=$3 front=$4 stall_s=$5
BACKEND=/sys/bus/xen-backend/devices
echo $$ > $WORK/run.pid
mkdir -p $OUT/dom0/trace $OUT/xenstore
cat > $WORK/job.fio

ended=ok
give_up() { [ $ended != ok ] || ended=$1; }

# The guest's words, up to where its evidence begins.
listen() {
    while read -r line; do
        [ "$line" != blkproof-tar ] || break
        echo "$line" >&2
    done
    cat > $OUT/guest1.tar
}

# What the guest is told to do, in its shell's words.
orders() {
    [ ! -e $WORK/drivers/xen-blkfront.ko ] || echo "nc 169.254.77.1 4001 > /lib/blkproof/xen-blkfront.ko < /dev/null"
    echo "sh $AGENT/guest.sh '$front' <<'blkproof-end-of-file'"
    cat $WORK/job.fio
    echo blkproof-end-of-file
}

# Another driver for the guest waits to be fetched.
serve_driver() {
    [ ! -e $WORK/drivers/xen-blkfront.ko ] || nc -l -p 4001 < $WORK/drivers/xen-blkfront.ko > /dev/null &
}

# Calls it a stall when the backend's counters rest while the load runs.
watch_progress() {
    last= since=$(uptime_s)
    while :; do
        token=
        for file in $BACKEND/vbd-*/statistics/*; do
            read -r value < "$file" && token=$token.$value
        done
        now=$(uptime_s)
        if [ "$token" != "$last" ]; then
            last=$token since=$now
            say "beat $token"
        elif [ $((now - since)) -ge "$stall_s" ]; then
            xenstore-write "$keys/stall" 1
            return
        fi
        usleep 200000
    done
}

read -r domid < $WORK/domid
say "domid $domid"
keys=/local/domain/$domid/$KEYS
log_begin=$(wc -c < /var/log/xenstored-trace.log)
echo "$domid $log_begin" > $WORK/run.facts

phase drivers
events_from "$keys"
serve_driver
orders | nc "$address" 4000 | listen &
listener=$!
driver=/lib/blkproof/xen-blkback.ko
[ ! -e $WORK/drivers/xen-blkback.ko ] || driver=$WORK/drivers/xen-blkback.ko
insmod $driver $back || exit 1
parameters xen_blkback > $OUT/dom0/parameters.json
refused && exit 2
record $OUT/dom0/trace
next_event 60 armed || { echo "the guest did not arm its probes" >&2; exit 3; }
phase armed

phase attach
xl block-attach "$guest" format=raw,vdev=xvda,access=rw,script=blkproof-block,target=/dev/ram0 >&2 ||
    give_up attach-failed

phase load
watch_progress &
progress=$!
next_event 600 'loaded-*' stall
kill $progress 2> /dev/null
[ "$event" != stall ] || give_up stall
case $event in loaded-0 | stall) ;; *) echo "fio ended with status ${event#loaded-}" >&2 ;; esac

phase loaded
snapshot gnttab_attached.txt attached.txt

phase detach
if [ $ended = ok ]; then
    xl block-detach "$guest" xvda >&2 || give_up detach-failed
    while [ $ended = ok ] && [ -e $BACKEND/vbd-* ]; do usleep 20000; done
fi

phase disarm
stop_recording
kill "$watcher"
xenstore-write "$keys/over" 1

phase pull
snapshot gnttab.txt after.txt
wait $listener
send
say "ended $ended"
