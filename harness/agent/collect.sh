# How dom0 ends a recording and sends what it has to the host.  For run.sh and salvage.sh.

# stop_recording: ends dom0's and Xen's traces.
stop_recording() {
    stop $OUT/dom0/trace
    read -r xentrace < $WORK/xentrace.pid
    kill "$xentrace"
}

# snapshot NAME: Xen's view of all grants, and xenstore's of the disk.
snapshot() {
    xl debug-keys g
    xl dmesg -c > "$OUT/$1"
    shift
    for path in /local/domain/0/backend/vbd "/local/domain/$domid/device/vbd"; do
        xenstore-ls -fp "$path" 2> /dev/null
    done > "$OUT/xenstore/$1"
}

# send: everything in one tar to the host, with a last line that tells that it is whole.
send() {
    drain $OUT/dom0/trace
    cp $WORK/xen-boot.txt $OUT
    cp $WORK/before.txt $OUT/xenstore
    tail -c +"$((log_begin + 1))" /var/log/xenstored-trace.log > $OUT/xenstore/access.log
    while [ -e "/proc/$xentrace" ]; do usleep 10000; done
    mv $WORK/xentrace.bin $OUT
    { tar -c -C $OUT . && echo blkproof-end-of-bulk; } > /dev/virtio-ports/blkproof.bulk
}
