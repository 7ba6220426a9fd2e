# Nomad's pot driver: docs/managers/nomad.md. Nomad itself is not here; pot runs with the arguments of the driver's prepare.go and
# pot.go, in its order. Sourced by scenarios/managers.sh.
# shellcheck shell=sh

. "$here/managers/pot-host.sh"
mkdir -p "$place/images" "$place/task/local" "$place/task/secrets"

# the image, by the page's lines
runs 0 pot create -p image -t single -b 15.1 -N public-bridge -i auto
(cd "$place" && page nomad 1 >hooks.sh && sh -e hooks.sh) >"$WORK/err" 2>&1
is "the page's lines" 0 $?
runs 0 pot snapshot -p image
runs 0 pot export -p image -t 1.0 -D "$place/images"
runs 0 pot destroy -F -p image

# task NAME INVOCATION ALLOCATION: what the driver runs until a task is started; the pot is $pot
task() {
	pot="$1_$2_$3"
	ran pot prepare -U "file://$place/images" -p image -t 1.0 -c '"sh /etc/task"' -N public-bridge -a "$2_$3" -n "$1" -v
	[ $st = 0 ] || not_ok "prepare $pot: status $st"
	ran pot mount-in -p "$pot" -d "$place/task/local" -m /local
	[ $st = 0 ] || not_ok "mount-in $pot: status $st"
	ran pot mount-in -p "$pot" -d "$place/task/secrets" -m /secrets
	ran pot set-env -p "$pot" -E NOMAD_TASK_NAME="$1" -E NOMAD_HOST_PORT_http=24000
	ran pot set-rss -M 64M -p "$pot"
	pot start "$pot" >"$place/start.$pot" 2>&1 </dev/null &
	driver=$!
	until_true grep -q 'post-start script' "$place/start.$pot"
	until_true has_port "$pot"
}
has_port() { [ "$(published "$1")" = 1 ]; }
# port POT: the first that it has
port() { "$KPORT" list --json "$1" | sed -n 's/.*"host_port": *"\{0,1\}\([0-9]*\).*/\1/p' | head -n 1; }

one=6f1b0a52-6c7e-4c0c-9b53-3f6a1f0e8a01 two=6f1b0a52-6c7e-4c0c-9b53-3f6a1f0e8a02
task web 1a2b3c4d $one
first=$pot first_driver=$driver first_port=$(port "$pot")
asks outside "tcp,192.0.2.1,$first_port=$first"
task web 1a2b3c4d $two
second=$pot second_port=$(port "$pot")
is "a second task has another port" yes "$([ -n "$second_port" ] && [ "$second_port" != "$first_port" ] && echo yes)"
asks outside "tcp,192.0.2.1,$second_port=$second" "tcp,192.0.2.1,$first_port=$first"

# stop: the driver only destroys
runs 0 pot destroy -p "$first" -F
wait "$first_driver"
is "a task that is stopped has no port" 0 "$(published "$first")"
asks outside "tcp,192.0.2.1,$first_port=-" "tcp,192.0.2.1,$second_port=$second"

# a task that ends: pot start returns, and the driver destroys
pkill -j "$second" sleep
wait "$driver"
is "a task that ends has no port" 0 "$(published "$second")"
runs 0 pot last-run-stats -p "$second"
runs 0 pot destroy -p "$second" -F
runs 0 pot destroy -F -p image_1_0
TRANSLATION=$plain
main_rules
