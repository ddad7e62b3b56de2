#!/bin/sh
# park.sh GUEST ADDRESS: brings a ready dom0 to the point where scenarios start: the disk exists, all
# probes are set up, Xen's own trace runs, and GUEST's agent waits for orders.
. /lib/blkproof/agent/lib.sh
guest=$1 address=$2
mkdir -p $OUT/xenstore
domid=$(xl domid "$guest") || exit 1
echo "$domid" > $WORK/domid

insmod /lib/blkproof/brd.ko rd_nr=1 rd_size=65536 || exit 1
sh $AGENT/arm.sh dom0 "$DOM0_BUFFER_KB" $OUT/dom0/trace || exit 2
events_from "/local/domain/$domid/$KEYS"

# -S sets the size in pages of each processor's buffer, and only once; the events are TRC_MEM.
xentrace -D -S 256 -e 0x0010f000 $OUT/xentrace.bin > $WORK/xentrace.log 2>&1 &
echo $! > $WORK/xentrace.pid

# The guest's agent goes over the network line, into a shell that reads a script from there.
{
    echo "mkdir -p $AGENT $WORK"
    for file in lib.sh arm.sh guest.sh guest.probes guest.filters guest.asleep; do
        echo "cat > $AGENT/$file <<'blkproof-end-of-file'"
        cat "$AGENT/$file"
        echo blkproof-end-of-file
    done
    echo "sh $AGENT/arm.sh guest $GUEST_BUFFER_KB $OUT/trace && echo blkproof-armed"
} | nc "$address" 4000 > $WORK/guest.arm
if ! grep -q blkproof-armed $WORK/guest.arm; then
    cat $WORK/guest.arm
    exit 3
fi

# One connection stays: into it go the orders of the run to come, out of it the guest's evidence.
mkfifo $WORK/to_guest $WORK/from_guest
nc "$address" 4000 0<> $WORK/to_guest 1<> $WORK/from_guest 2> /dev/null &
echo "exec sh $AGENT/guest.sh" > $WORK/to_guest
while read -r line; do
    case $line in
    blkproof-waits) break ;;
    *) echo "$line" ;;
    esac
done < $WORK/from_guest

xenstore-ls -f /local/domain > $OUT/xenstore/before.txt
xl dmesg > $OUT/xen-boot.txt
