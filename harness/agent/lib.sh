# What the agents of dom0 and of the guest share.  Under emulation a fork costs about 10 ms,
# so whatever the shell can do itself is done by the shell.
export PATH=/bin
TRACING=/sys/kernel/tracing
AGENT=/lib/blkproof/agent
WORK=/run/blkproof
OUT=$WORK/out # what the host gets
KEYS=data/blkproof # in the guest's part of xenstore: each key that appears is an event
END_OF_ORDERS=blkproof-end-of-orders

# The host reads these lines: the phase that begins, and signs of life in it.
say() { echo "blkproof: $*" >&2; }
phase() { say "phase $1"; mark "$1"; }

# A mark in the trace itself; a trace that is off refuses it.
mark() { echo "blkproof:$1" > $TRACING/trace_marker; } 2> /dev/null

# nap SECONDS: sleeps without a fork, by reading from a pipe that nobody writes to.
nap() { read -r -t "$1" nothing <> $WORK/silence; }

uptime_s() { read -r up _ < /proc/uptime; echo "${up%%.*}"; }

# copy_text FROM TO: files of a kernel have no size, and cat would be a fork.
copy_text() { while read -r line; do printf '%s\n' "$line"; done < "$1" > "$2"; }

# parameters MODULE: what the module's parameters really are, as JSON.
parameters() {
    separator=
    printf '{"%s": {' "$1"
    for file in /sys/module/"$1"/parameters/*; do
        read -r value < "$file" && printf '%s"%s": "%s"' "$separator" "${file##*/}" "$value"
        separator=', '
    done
    printf '}}\n'
}

# events_from PATH: begins to watch; each key that appears below PATH becomes a line of $WORK/events.
# To be called once, at parking, for nap needs it too.
# Opened for both ways, a pipe neither waits for the other end nor ends with it.
events_from() {
    mkfifo $WORK/events $WORK/silence
    xenstore-watch "$1" < /dev/null 1<> $WORK/events 2> /dev/null &
}

# next_event SECONDS PATTERN [PATTERN]: waits for a key that fits one; leaves its name in $event.
# Reads descriptor 3, which is $WORK/events.
next_event() {
    while read -r -t "$1" event <&3; do
        event=${event##*/}
        case $event in $2 | ${3-$2}) return 0 ;; esac
    done
    return 1
}

# disarm WHO: takes WHO's probes away.  One that sleeps is held by the trigger that is to wake it.
disarm() {
    while read -r event trigger; do
        echo "!$trigger" > "$TRACING/events/blkproof/$event/trigger" || return 1
    done < "$AGENT/$1.asleep"
    echo 0 > $TRACING/events/blkproof/enable && echo > $TRACING/kprobe_events
}

# record DIRECTORY, stop DIRECTORY: the trace records from here on, and no more.  Hits that probes miss
# before and after don't matter, so their count is kept at both ends.
record() {
    cp $TRACING/kprobe_profile "$1/kprobe_profile.armed"
    echo 1 > $TRACING/tracing_on
}
stop() {
    echo 0 > $TRACING/tracing_on
    cp $TRACING/kprobe_profile "$1"
}

# drain DIRECTORY: takes the pages of a stopped trace, the last and partly filled one of each CPU too.
# Reading pages waits for more when none are left, so a reader is ended once the kernel has none.
# A drain that was broken off goes on where it was.
drain() {
    mkdir -p "$1/stats"
    readers=
    for cpu in $TRACING/per_cpu/cpu*; do
        name=${cpu##*/}
        [ -e "$1/stats/$name" ] || copy_text "$cpu/stats" "$1/stats/$name"
        dd bs=4096 if="$cpu/trace_pipe_raw" >> "$1/$name.raw" 2> /dev/null &
        readers="$readers $!"
    done
    copy_text $TRACING/saved_cmdlines "$1/saved_cmdlines"
    until drained; do nap 0.01; done
    kill $readers
    wait $readers 2> /dev/null
}

drained() {
    for cpu in $TRACING/per_cpu/cpu*; do
        while read -r key value _; do
            [ "$key" != entries: ] || [ "$value" = 0 ] || return 1
        done < "$cpu/stats"
    done
    # A reader that still has a page in hand runs; one that waits for more sleeps, and may be ended.
    for reader in $readers; do
        read -r _ _ state _ < "/proc/$reader/stat" || continue
        case $state in S | Z) ;; *) return 1 ;; esac
    done
}
