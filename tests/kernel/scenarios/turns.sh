#!/bin/sh
# Both backends by turns on one jail: what one has loaded the other reads, changes and takes away.
# backends: native

network
other() { if [ "$KPORT_BACKEND" = native ]; then KPORT_BACKEND=pfctl; else KPORT_BACKEND=native; fi; }

gives 0 publish web 8080:80 8000-8003:9000/tcp,udp
held outside tcp,192.0.2.1,8080
other
gives 0 list web
is "list by $KPORT_BACKEND" "" "$(awk 'NR > 1 && $NF != "live"' "$WORK/out")"
gives 0 publish web 8080:80 8000-8003:9000/tcp,udp
lives "the same again by $KPORT_BACKEND"
other
gives 0 publish --add web 8090:81
lives "added by $KPORT_BACKEND"
asks outside tcp,192.0.2.1,8090=web:81 udp,192.0.2.1,8002=web:9002
other
gives 3 publish app 8090:80
gives 0 unpublish web 8080:80
died "unpublished by $KPORT_BACKEND"
asks outside tcp,192.0.2.1,8080=- tcp,192.0.2.1,8090=web
other
gives 0 apply
gives 0 apply
asks outside tcp,192.0.2.1,8090=web
other
gives 0 unpublish web
asks outside tcp,192.0.2.1,8090=-
is "nothing of kport is left in pf" "" "$(anchors)"
