#!/bin/sh
# Connections: those that are still allowed live on, those that are not end.
# backends: native pfctl

network
gives 0 publish web 8080:80 8081:81 8082:82/udp
held outside tcp,192.0.2.1,8080 one
held outside tcp,192.0.2.1,8081 two
held outside udp,192.0.2.1,8082 three
gives 0 publish web 8080:80 8081:81 8082:82/udp
lives "the same again" one
gives 0 publish --add web 8083:83
lives "one more" one
lives "one more" two
lives "one more" three
pfctl -q -f "$WORK/pf.conf"
lives "pf.conf loaded again" one
gives 0 unpublish web 8081:81
lives "another mapping unpublished" one
died "unpublished" two
lives "another mapping unpublished" three
# fewer sources end the connections of others
gives 0 publish web --sources 192.0.2.0/24 8080:80 8082:82/udp
lives "sources that have it" one
lives "sources that have it" three
gives 0 publish web --sources 203.0.113.0/24 8080:80 8082:82/udp
died "other sources" one
died "other sources" three
asks outside tcp,192.0.2.1,8080=-
let_go

# another target
gives 0 publish web 8080:80
held outside tcp,192.0.2.1,8080 one
gives 0 publish web 8080:81
died "another port of the jail" one
let_go

# a jail's own connections to what it is reached by, and what is none of kport's
main_rules 'pass quick inet proto tcp from 10.1.0.2 to 10.0.0.3 port 85'
gives 0 publish web 8080:80
held other tcp,10.0.0.2,80 one
held other tcp,10.0.0.3,85 two
held outside tcp,192.0.2.1,8080 three
gives 0 publish web --reach inner0 8080:80
died "a smaller reach list" one
lives "a smaller reach list" two
lives "a smaller reach list" three
let_go

# hairpin taken away
gives 0 publish web --hairpin 8080:80
held other tcp,192.0.2.1,8080 one
held outside tcp,192.0.2.1,8080 two
held other tcp,10.0.0.2,80 three
gives 0 publish web 8080:80
died "no hairpin" one
lives "no hairpin" two
lives "no hairpin" three
let_go

# a connection is counted once, whatever states it has, and what pf does not evaluate is not live
gives 0 publish web 8080:80
held outside tcp,192.0.2.1,8080 one
held outside tcp,192.0.2.1,8080 two
k metrics
is "connections of a jail with its own network stack" 2 "$(sed -n 's/^kport_mapping_states_total{jail="web",.*} //p' "$WORK/out")"
pfctl -qd
k list web
is "pf is disabled" inert "$(awk 'NR == 2 { print $NF }' "$WORK/out")"
pfctl -qe
k list web
is "pf is enabled" live "$(awk 'NR == 2 { print $NF }' "$WORK/out")"
let_go
gives 0 publish web 8080:80
gives 0 publish flat 8100:80
held outside tcp,192.0.2.1,8080 one
held outside tcp,192.0.2.1,8100 two
held other tcp,10.0.0.3,85 three
gives 0 unpublish web
died "unpublished" one
lives "another jail unpublished" two
lives "another jail unpublished" three
gives 0 unpublish flat
died "unpublished, on the host's stack" two
