# Bastille: docs/managers/bastille.md. Sourced by scenarios/managers.sh.
# shellcheck shell=sh

if [ -e /usr/local/share/bastille ]; then
	skip "this host has a Bastille"
	return
fi
made /usr/local/share/bastille /usr/local/bin/bastille /usr/local/etc/bastille /var/log/bastille
mkdir -p /usr/local/share /usr/local/bin /usr/local/etc/bastille
cp -R "$KPORT_MANAGERS/bastille/usr/local/share/bastille" /usr/local/share/
cp "$KPORT_MANAGERS/bastille/usr/local/bin/bastille" /usr/local/bin/
sed "s|^bastille_prefix=.*|bastille_prefix=$place/bastille|; s/^bastille_template_\([a-z]*\)=.*/bastille_template_\1=/" \
	"$KPORT_MANAGERS/bastille/usr/local/etc/bastille/bastille.conf.sample" >/usr/local/etc/bastille/bastille.conf
PATH=$PATH:/usr/local/bin
# as `bastille setup` has it in pf.conf, without its nat
main_rules 'table <jails> persist' >/dev/null 2>&1 || main_rules
tree "$place/bastille/releases/15.1-RELEASE"
printf '#!/bin/sh\necho 15.1-RELEASE\n' >"$place/bastille/releases/15.1-RELEASE/bin/freebsd-version"
chmod 755 "$place/bastille/releases/15.1-RELEASE/bin/freebsd-version"
loop=$(ifconfig lo create)
ifconfig "$loop" up

# what `bastille edit` starts: the page's lines go before the last brace
cat >"$place/editor" <<END
#!/bin/sh
{ sed '\$d' "\$1"; cat $place/lines; echo '}'; } >"$place/edited" && cat "$place/edited" >"\$1"
END
chmod 755 "$place/editor"
# create NAME ADDRESS PORT
create() {
	runs 0 bastille create -T "$1" 15.1-RELEASE "$2" "$loop"
	ran bastille stop "$1"
	page bastille 1 | sed "s/8080:80/$3:80/" >"$place/lines"
	# one behind them, which a hook must not read away
	echo "  exec.poststop += \"echo $1 >>$place/others\";" >>"$place/lines"
	runs 0 env EDITOR="$place/editor" bastille edit "$1"
}
create web 10.9.8.2 8080
ran bastille start web
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.100
ran bastille restart web
gives 0 gc
asks outside tcp,192.0.2.1,8080=web
held outside tcp,192.0.2.1,8080
ran bastille stop web
died "stopped"
let_go
is "nothing of web is left in pf" "" "$(anchors)"
is "the line behind kport's runs at each stop" 2 "$(wc -l <"$place/others" | tr -d ' ')"

ran bastille start web
runs 0 bastille clone -a web app 10.9.8.3
ran bastille start app
is "a clone does not start" no "$(running app)"
printed 8080
asks outside tcp,192.0.2.1,8080=web
sed -i '' 's/8080:80/8081:80/' "$place/bastille/jails/app/jail.conf"
ran bastille start app
asks outside tcp,192.0.2.1,8081=app
before=$(wc -l <"$place/others")
ran bastille stop -f app
is "stop -f leaves its ports" 1 "$(published app)"
is "and runs the line behind kport's" $((before + 1)) "$(wc -l <"$place/others" | tr -d ' ')"
gives 0 gc
is "gc removes them" 0 "$(published app)"
runs 0 bastille rename app app2
ran bastille start app2
asks outside tcp,192.0.2.1,8081=app2
ran bastille destroy -a -y app2
is "destroy -a stops and unpublishes" 0 "$(published app2)"
ran bastille destroy -a -y web
