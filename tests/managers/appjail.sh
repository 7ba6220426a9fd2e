#!/bin/sh
# Plays AppJail: quick NAME, config NAME 'KEY="VALUE"', start NAME ADDRESS, stop [-f] NAME, rename OLD NEW, clone OLD NEW,
# destroy -f NAME.
#
# jail.conf(5) is made of the template at each start. A jail on a virtual network gets its address from AppJail's own poststart, which
# stands first. A start that fails is followed by a stop, which finds no jail. stop -f is jail -R.
. "$(dirname "$0")/world.sh"
jail="$(dirname "$0")/jail.sh"
# what AppJail's rc script adds to PATH
PLAYED_PATH=$RC_PATH:/usr/local/bin
export PLAYED_PATH
template() {
	echo "$WORLD/appjail/$1/template.conf"
}
conf() {
	{
		echo "$1 {"
		sed 's/^/  /; s/$/;/' "$(template "$1")"
		echo "}"
	} >"$WORLD/appjail/$1/jail.conf"
	echo "$WORLD/appjail/$1/jail.conf"
}

case $1 in
quick)
	mkdir -p "$WORLD/appjail/$2"
	{
		echo "exec.poststart += \"touch $WORLD/assigned\""
		echo "exec.poststop += \"touch $WORLD/unplugged\""
	} >"$(template "$2")"
	;;
config)
	printf '%s += %s\n' "${3%%=*}" "${3#*=}" >>"$(template "$2")"
	;;
start)
	"$jail" -c "$(conf "$2")" "$2" "$3"
	;;
stop)
	if [ "$2" = -f ]; then
		"$jail" -R "$3"
	elif [ -n "$(jid "$2")" ]; then
		"$jail" -r "$(conf "$2")" "$2"
	fi
	;;
rename)
	[ -z "$(jid "$2")" ] || exit 77
	mv "$WORLD/appjail/$2" "$WORLD/appjail/$3"
	;;
clone)
	cp -R "$WORLD/appjail/$2" "$WORLD/appjail/$3"
	;;
destroy)
	# EX_NOPERM
	[ -z "$(jid "$3")" ] || exit 77
	rm -r "$WORLD/appjail/$3"
	;;
*) exit 64 ;;
esac
