#!/bin/sh
# guest.sh: the guest's part of a run.  Waits for orders, in lines: where to get blkfront from ("ours", or
# dom0's address and port), its parameters, fio's job.  Runs that on the disk when it comes, and sends its
# trace when dom0 says that all is over.
# Between "armed" and "over" nothing goes over the network line, whose grants would be noise.
. /lib/blkproof/agent/lib.sh
DISK=/dev/xvda
DEVICE=/sys/bus/xen/devices/vbd-51712
DRIVER=/lib/blkproof/xen-blkfront.ko

tell() { xenstore-write "$KEYS/$1" 1; }

events_from $KEYS
exec 3<> $WORK/events
next_event 60 "${KEYS##*/}" # the first line is the path itself: from here on no key is missed

echo blkproof-waits
read -r from
read -r front
while read -r line && [ "$line" != $END_OF_ORDERS ]; do echo "$line"; done > $WORK/job.fio
if [ "$from" != ours ]; then
    nc $from 0<> $WORK/silence > $DRIVER # an end of what we send would end what we get
fi

said=$(insmod $DRIVER $front 2>&1 < /dev/null) || echo "xen-blkfront: $said"
parameters xen_blkfront > $OUT/parameters.json
record $OUT/trace
mark armed
tell armed

(
    until [ -b $DISK ]; do nap 0.02; done
    tell load &
    mark load
    fio --output-format=json --output=$OUT/fio.json $WORK/job.fio > $OUT/fio.log 2>&1
    status=$?
    mark loaded
    tell loaded-$status
) < /dev/null > /dev/null 2>&1 & # nothing that may hang holds the network line open

next_event 3600 over
tries=0
while [ -e $DEVICE ] && [ $tries -lt 40 ]; do
    nap 0.025
    tries=$((tries + 1))
done
mark disarm
stop $OUT/trace
drain $OUT/trace
echo blkproof-tar
exec tar -c -C $OUT .
