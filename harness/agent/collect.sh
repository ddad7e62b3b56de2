# How dom0 ends a recording and sends what it has to the host.  For run.sh and salvage.sh.

# stop_recording: ends dom0's and Xen's traces.
stop_recording() {
    stop $OUT/dom0/trace
    read -r xentrace < $WORK/xentrace.pid
    [ ! -e "/proc/$xentrace" ] || kill "$xentrace"
}

# grants NAME: has Xen print its own list of mapped grants.  It may be longer than Xen's memory of what it
# printed, so the host takes it from the console and calls it NAME.
grants() {
    say "grants $1"
    : > $WORK/grants
    xl debug-keys g
}

# disk_in_xenstore NAME: what both sides have published about the disk.
disk_in_xenstore() {
    for path in /local/domain/0/backend/vbd "/local/domain/$domid/device/vbd"; do
        xenstore-ls -f "$path" 2> /dev/null
    done > "$OUT/xenstore/$1"
}

# collect: everything of dom0's, ready to be sent.
collect() {
    drain $OUT/dom0/trace
    tail -c +"$((log_begin + 1))" /var/log/xenstored-trace.log > $OUT/xenstore/access.log
    while [ -e "/proc/$xentrace" ]; do nap 0.01; done
}

# send: all of it in one tar to the host, with a last line that tells that it is whole.
send() {
    { tar -c -C $OUT . && echo blkproof-end-of-bulk; } > /dev/virtio-ports/blkproof.bulk
}
