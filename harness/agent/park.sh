#!/bin/sh
# park.sh GUEST ADDRESS: brings a ready dom0 to the point where scenarios start: the disk exists,
# GUEST runs and has its agent, all probes are set up, Xen's own trace runs.
. /lib/blkproof/agent/lib.sh
guest=$1 address=$2
mkdir -p $WORK
xl domid "$guest" > $WORK/domid || exit 1

insmod /lib/blkproof/brd.ko rd_nr=1 rd_size=65536 || exit 1
sh $AGENT/arm.sh dom0 "$DOM0_BUFFER_KB" || exit 2

# -S sets the size in pages of each processor's buffer, and only once; the events are TRC_MEM.
xentrace -D -S 256 -e 0x0010f000 $WORK/xentrace.bin > $WORK/xentrace.log 2>&1 &
echo $! > $WORK/xentrace.pid

# The guest's part goes over its network line, into a shell that reads a script from there.
{
    echo "mkdir -p $AGENT"
    for file in lib.sh arm.sh guest.sh guest.probes guest.filters; do
        echo "cat > $AGENT/$file <<'blkproof-end-of-file'"
        cat "$AGENT/$file"
        echo blkproof-end-of-file
    done
    echo "mkdir -p $WORK"
    echo "sh $AGENT/arm.sh guest $GUEST_BUFFER_KB && echo blkproof-armed"
} | nc "$address" 4000 > $WORK/guest.arm
if ! grep -q blkproof-armed $WORK/guest.arm; then
    cat $WORK/guest.arm
    exit 3
fi
xenstore-ls -fp /local/domain > $WORK/before.txt
xl dmesg -c > $WORK/xen-boot.txt
