#!/bin/sh
# arm.sh WHO BUFFER_KB DIRECTORY: sets WHO's probes up, ready to record but not recording yet, and puts
# into DIRECTORY what tells how to read the record.
# Probes in a module that isn't loaded take effect when it is.
. /lib/blkproof/agent/lib.sh

echo 0 > $TRACING/tracing_on
echo x86-tsc > $TRACING/trace_clock
echo "$2" > $TRACING/buffer_size_kb
if ! cat "$AGENT/$1.probes" > $TRACING/kprobe_events; then
    cat $TRACING/error_log
    exit 1
fi
while read -r event filter; do
    echo "$filter" > "$TRACING/events/blkproof/$event/filter" || exit 1
done < "$AGENT/$1.filters"
# A probe sleeps when another event's trigger is to enable it; to enable it ourselves would wake it.
asleep=:
while read -r event trigger; do
    echo "$trigger" > "$TRACING/events/blkproof/$event/trigger" || exit 1
    sleeper=${trigger#enable_event:blkproof:}
    asleep=$asleep${sleeper%% *}:
done < "$AGENT/$1.asleep"
for event in $TRACING/events/blkproof/*/; do
    event=${event%/}
    case $asleep in
    *:${event##*/}:*) ;;
    *) echo 1 > "$event/enable" || exit 1 ;;
    esac
done

# What the kernel prints is an event, and what it keeps to itself of deferred grants is printed.
echo 1 > $TRACING/events/printk/console/enable
[ ! -e /proc/dynamic_debug/control ] || echo 'file grant-table.c format g.e. +p' > /proc/dynamic_debug/control

mkdir -p "$3/formats/ftrace" "$3/formats/blkproof" "$3/formats/printk"
cat $TRACING/events/printk/console/format > "$3/formats/printk/console"
cat $TRACING/events/ftrace/print/format > "$3/formats/ftrace/print"
for event in $TRACING/events/blkproof/*/; do
    event=${event%/}
    cat "$event/format" > "$3/formats/blkproof/${event##*/}"
done
cp $TRACING/kprobe_events $TRACING/trace_clock $TRACING/events/header_page $TRACING/events/header_event "$3"
