#!/bin/sh
# What a jail says of itself is a hint from a stranger: addresses that are not its own, names that are words of pf.
# backends: native pfctl

network
gives 0 publish web 8080:80

# evil, alone behind inner1, takes web's address, the host's, and one of nobody's network
inside evil inner1 10.1.0 fd01 66
serve evil
for stolen in 10.0.0.2 192.0.2.1 198.51.100.9; do
	jexec evil ifconfig "$far" inet $stolen/32 alias
	k publish evil 8666:80
	is "evil with $stolen: no redirect leads there" 0 "$(redirects evil | grep -c -e "-> $stolen ")"
	asks outside tcp,192.0.2.1,8080=web
	k unpublish evil
	jexec evil ifconfig "$far" inet $stolen -alias
done
gives 0 publish evil 8666:80
asks outside tcp,192.0.2.1,8666=evil
gives 0 unpublish evil

# evil has only web's address: it keeps web from nothing, and what it has published ends when web's address is given
jexec evil ifconfig "$far" inet 10.1.0.66 -alias
jexec evil ifconfig "$far" inet 10.0.0.2/32 alias
gives 0 unpublish web
gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,8080=web
gives 0 unpublish web
gives 0 publish evil 8666:80
gives 0 publish web -a 10.0.0.2 8080:80
says 'jail "evil" has reported 10.0.0.2'
is "evil has no redirect any more" 0 "$(redirects evil | grep -c .)"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8666=-
jexec evil ifconfig "$far" inet 10.0.0.2 -alias
jexec evil ifconfig "$far" inet 10.1.0.66/24 alias

# two jails on one address: each has its own ports
jail -c name=twin path=/ ip4.addr=10.9.0.2 ip6=disable persist >/dev/null
serve twin tcp,90
gives 0 publish flat 8100:80
gives 0 publish twin 8190:90
asks outside tcp,192.0.2.1,8100=flat tcp,192.0.2.1,8190=twin
gives 0 unpublish twin
asks outside tcp,192.0.2.1,8100=flat tcp,192.0.2.1,8190=-

# names
main=$(pfctl -sr -P 2>/dev/null)
number=1
# shellcheck disable=SC2016 # no variable
for name in 'x"y' 'pass quick all' '$(id)' '../web' '_' "$(jot -b n -s '' 70)" 'web*'; do
	if jail -c name="$name" path=/ ip4.addr=10.9.3.$number ip6=disable persist >/dev/null 2>&1; then
		ifconfig "$loop" inet 10.9.3.$number/32 alias
		jexec "$name" "$PEER" serve strange tcp,80 >>"$WORK/servers"
		gives 0 publish "$name" $((8700 + number)):80
		asks outside tcp,192.0.2.1,$((8700 + number))=strange tcp,192.0.2.1,8080=web
		gives 0 unpublish "$name"
		asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,$((8700 + number))=-
		jail -R "$name"
	else
		note "jail(8) does not take the name $name"
	fi
	number=$((number + 1))
done
is "the main ruleset is the admin's" "$main" "$(pfctl -sr -P 2>/dev/null)"

# a nested jail whose name is no text
if jexec evil jail -c name="$(printf '\377')" path=/ persist >/dev/null 2>&1; then
	gives 0 apply
	gives 0 list
	asks outside tcp,192.0.2.1,8080=web
else
	note "jail(8) does not take a name that is no text"
fi
gives 0 unpublish web
gives 0 unpublish flat
