#!/bin/sh
# At kern.securelevel 3 the kernel refuses to change pf: status 4, and nothing changes. Only a reboot lowers it.
# backends: native pfctl

if [ -z "${KPORT_SECURELEVEL-}" ]; then
	skip "after it this machine cannot change pf until it boots again: run it alone, with KPORT_SECURELEVEL=1"
	exit 0
fi
network
gives 0 publish web 8080:80
k doctor
sysctl -q kern.securelevel=3 >/dev/null
host_restore() {
	let_go
	stop_servers
	note "the host stays as it is until it boots again"
}

before=$(records)
# refused ARGUMENT...: status 4 with the reason, whatever else cannot be done
refused() {
	gives 4 "$@"
	says kern.securelevel
}
refused publish web 8081:81
refused publish app 8082:80
refused publish --add web 8083:83
refused unpublish web 8080:80
refused unpublish web
is "the records are as they were" "$before" "$(records)"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=- tcp,192.0.2.1,8082=-

# what is there already needs no change; since FreeBSD 15 pfctl(8) may not even read rules then
k publish web 8080:80
case $BACKEND in
native) is "the same again is status 0" 0 "$st" ;;
pfctl) note "the same again is status $st" ;;
esac
is "and no note says that it does not arrive" "" "$(grep -E 'instead|refuse|block' "$WORK/err" | grep -v securelevel)"
k list
note "list is status $st: $(line "$(tail -n 1 "$WORK/out" "$WORK/err")")"
k doctor
says "kern.securelevel is 3: pf's rules cannot be changed until the next boot"
