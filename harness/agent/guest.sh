#!/bin/sh
# guest.sh PARAMETERS < JOB: the guest's part of a run.  Loads blkfront with PARAMETERS, runs fio's JOB
# on the disk when it comes, and sends its trace when dom0 says that all is over.
# Between "armed" and dom0's "over" nothing goes over the network line, whose grants would be noise.
. /lib/blkproof/agent/lib.sh
DISK=/dev/xvda
DEVICE=/sys/bus/xen/devices/vbd-51712
mkdir -p $OUT/trace
cat > $WORK/job.fio

tell() { xenstore-write "$KEYS/$1" 1; }

insmod /lib/blkproof/xen-blkfront.ko $1 > $WORK/insmod.log 2>&1 || say "xen-blkfront: $(cat $WORK/insmod.log)"
parameters xen_blkfront > $OUT/parameters.json
refused > $WORK/refused 2>&1 && say "refused $(cat $WORK/refused)"

events_from $KEYS
record $OUT/trace
mark armed
tell armed

(
    until [ -b $DISK ]; do usleep 20000; done
    mark load
    fio --output-format=json --output=$OUT/fio.json $WORK/job.fio > $OUT/fio.log 2>&1
    status=$?
    mark loaded
    tell loaded-$status
) &

next_event 600 over
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    [ -e $DEVICE ] || break
    usleep 50000
done
mark disarm
stop $OUT/trace
kill "$watcher"
drain $OUT/trace
echo "blkproof-tar"
exec tar -c -C $OUT .
