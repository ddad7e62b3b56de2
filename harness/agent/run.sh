#!/bin/sh
# run.sh GUEST BACK_PARAMETERS FRONT_PARAMETERS STALL_S < JOB: one scenario, from the parked state to a tar
# of all evidence in the port blkproof.bulk.  What it says: see say() and phase().
. /lib/blkproof/agent/lib.sh
. /lib/blkproof/agent/collect.sh
guest=$1 back=$2 front=$3 stall_s=$4
BACKEND=/sys/bus/xen-backend/devices
OTHER_BACK=$WORK/drivers/xen-blkback.ko
OTHER_FRONT=$WORK/drivers/xen-blkfront.ko
echo $$ > $WORK/run.pid

ended=ok
give_up() { [ $ended != ok ] || ended=$1; }

# What the guest is told to do: see guest.sh.
order() {
    if [ -e $OTHER_FRONT ]; then
        nc -l -p 4001 < $OTHER_FRONT > /dev/null &
        echo "169.254.77.1 4001"
    else
        echo ours
    fi
    echo "$front"
    while read -r line; do echo "$line"; done
    echo $END_OF_ORDERS
}

# The guest's words, marked as such, up to where its evidence begins.
listen() {
    while read -r line && [ "$line" != blkproof-tar ]; do
        echo "guest: $line" >&2
    done
    cat > $OUT/guest1.tar
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
        nap 0.2
    done
}

read -r domid < $WORK/domid
say "domid $domid"
keys=/local/domain/$domid/$KEYS
log_begin=$(stat -c %s /var/log/xenstored-trace.log)
echo "$log_begin" > $WORK/log_begin
exec 3<> $WORK/events

phase drivers
order > $WORK/to_guest
listen < $WORK/from_guest &
listener=$!
echo $listener > $WORK/listener.pid
driver=/lib/blkproof/xen-blkback.ko
[ ! -e $OTHER_BACK ] || driver=$OTHER_BACK
insmod $driver $back || exit 1
parameters xen_blkback > $OUT/dom0/parameters.json
record $OUT/dom0/trace
next_event 60 armed || { echo "the guest did not arm its probes" >&2; exit 3; }
phase armed

phase attach
xl block-attach "$guest" format=raw,vdev=xvda,access=rw,script=blkproof-block,target=/dev/ram0 >&2 ||
    give_up attach-failed

phase load
watch_progress &
progress=$!
next_event 3600 load stall
disk_in_xenstore attached.txt & # while fio starts
[ "$event" = stall ] || next_event 3600 'loaded-*' stall
kill $progress 2> /dev/null
case $event in
loaded-0) ;;
stall) give_up stall ;;
*) echo "fio ended with status ${event#loaded-}" >&2 ;;
esac

phase loaded
grants gnttab_attached.txt

phase detach
if [ $ended = ok ]; then
    xl block-detach "$guest" xvda >&2 || give_up detach-failed
    while [ $ended = ok ] && [ -e $BACKEND/vbd-* ]; do nap 0.02; done
fi

phase disarm
stop_recording
xenstore-write "$keys/over" 1

phase pull
if [ $ended = ok ]; then
    grants gnttab.txt
    disk_in_xenstore after.txt
fi
collect
wait $listener
send
say "ended $ended"
