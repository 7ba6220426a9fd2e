# AppJail: docs/managers/appjail.md. KPORT_MANAGERS/appjail is what `make install DESTDIR=...` makes. Sourced by scenarios/managers.sh.
# shellcheck shell=sh

if [ ! -x "$KPORT_MANAGERS/appjail/usr/local/bin/appjail" ]; then
	skip "appjail is not installed there"
	return
fi
if [ -e /usr/local/share/appjail ]; then
	skip "this host has an AppJail"
	return
fi
made /usr/local/share/appjail /usr/local/libexec/appjail /usr/local/bin/appjail /usr/local/bin/appjail-config /usr/local/etc/appjail \
	/var/log/appjail /volumes
mkdir -p /usr/local/share /usr/local/libexec /usr/local/bin /usr/local/etc/appjail
cp -R "$KPORT_MANAGERS/appjail/usr/local/share/appjail" /usr/local/share/
cp -R "$KPORT_MANAGERS/appjail/usr/local/libexec/appjail" /usr/local/libexec/
cp "$KPORT_MANAGERS/appjail/usr/local/bin/appjail" "$KPORT_MANAGERS/appjail/usr/local/bin/appjail-config" /usr/local/bin/
cat >/usr/local/etc/appjail/appjail.conf <<END
EXT_IF=wan0
ON_IF=wan0
FREEBSD_VERSION=15.1
FREEBSD_ARCH=amd64
USE_TIMEZONE=0
DATADIR=$place/appjail
VOLUMESDIR=$place/appjail/volumes
AUTO_NETWORK_ADDR=10.7.0.0/24
END
PATH=$PATH:/usr/local/bin
release=$place/appjail/releases/amd64/15.1/default
mkdir -p "$release"
tree "$release/release"
: >"$release/.done"
echo thick >"$release/release/.appjail" 2>/dev/null
touch /etc/resolv.conf
loop=$(ifconfig lo create)
ifconfig "$loop" up

# create NAME ADDRESS PORT
create() {
	runs 0 appjail quick "$1" osversion=15.1 type=thick alias="$loop" ip4="$2/32"
	hooks "$1" "$3"
}
# hooks NAME PORT: the page's lines
hooks() {
	page appjail 1 | sed "s/-j web/-j $1/; s/8080:80/$2:80/" >"$place/hooks.sh"
	ran sh -e "$place/hooks.sh"
	is "the page's lines for $1" 0 "$st"
}
create web 10.9.9.2 8080
runs 0 appjail start web
asks outside tcp,192.0.2.1,8080=web:80@192.0.2.100
runs 0 appjail restart web
gives 0 gc
asks outside tcp,192.0.2.1,8080=web
runs 77 appjail jail destroy -f web
create app 10.9.9.3 8080
ran appjail start app
is "a jail whose port is taken does not start" no "$(running app)"
printed web
asks outside tcp,192.0.2.1,8080=web
runs 0 appjail stop web
is "nothing of web is left in pf" "" "$(anchors)"
runs 0 appjail jail rename web web2
runs 0 appjail start web2
asks outside tcp,192.0.2.1,8080=web2
ran appjail stop -f web2
is "stop -f leaves its ports" 1 "$(published web2)"
gives 0 gc
is "gc removes them" 0 "$(published web2)"
runs 0 appjail jail destroy -f web2
runs 0 appjail jail destroy -f app
