#!/bin/sh
# docs/first-ten-minutes.md, line by line: files are written, commands typed, and what they print is what the page has.
# backends: native

page=$here/../../docs/first-ten-minutes.md tree=$here/../..
for file in "$page" "$tree/scripts/install.sh" "$tree/kport.pc.in" "$tree/schema/list.json" "$KPORT_LIB/libkport.so"; do
	if [ ! -f "$file" ]; then
		skip "there is no $file"
		exit 0
	fi
done
if [ -e /usr/local/bin/kport ] || ifconfig em0 >/dev/null 2>&1 || ifconfig lo1 >/dev/null 2>&1; then
	skip "this host has a kport, an em0 or a lo1"
	exit 0
fi

# the sources, and what cargo has built; nobody links with the static library here
mkdir -p "$WORK/tree/target/release"
cp -R "$tree"/* "$WORK/tree/"
cp "$KPORT" "$WORK/tree/target/release/kport"
cp "$KPORT_LIB/libkport.so" "$WORK/tree/target/release/"
: >"$WORK/tree/target/release/libkport.a"
# it has the compiler, too: for the libraries that a static one needs
printf '#!/bin/sh\necho "note: native-static-libs: -lc" >&2\n' >"$WORK/rustc"
chmod 755 "$WORK/rustc"
export RUSTC="$WORK/rustc" STRIP=
# no kport, no pf, and a client behind em0
find /usr/local -type f -o -type l | sort >"$WORK/usr.local"
stack outside
epair em0 outside
ifconfig em0 -group epair
ifconfig em0 inet 192.0.2.1/24
jexec outside ifconfig "$far" inet 192.0.2.100/24 up
route -q delete default 2>/dev/null
route -q add default 192.0.2.100
set_sysctl net.inet.ip.forwarding=0
pfctl -q -d 2>/dev/null
pfctl -q -F all 2>/dev/null
rm -rf /etc/pf.conf /etc/rc.conf /etc/sysctl.conf /etc/sysctl.kld.d /etc/jail.conf
: >/etc/rc.conf
export PATH="$PATH:/usr/local/bin"
unset KPORT_BACKEND

# what varies, on both sides: the version, and the client, which is a jail here
same() { sed -E -e 's/^kport [0-9.]+$/kport VERSION/' -e 's/(from|to) jail outside/\1 the network behind em0/' "$1"; }

# type_in PROMPT COMMAND: what it prints is in got
type_in() {
	last="(none; $2)"
	case $1 in
	'#') (cd "$WORK/tree" && sh -c "$2") >"$WORK/got" 2>&1 </dev/null ;;
	*) jexec outside sh -c "$2" >"$WORK/got" 2>&1 </dev/null ;;
	esac
	st=$?
	cp "$WORK/got" "$WORK/err"
}
# compare the last command with what the page has after it
check() {
	[ -n "$typed" ] || return 0
	same "$WORK/expected" >"$WORK/expected.same"
	same "$WORK/got" >"$WORK/got.same"
	is "$typed" "as on the page, status 0" "$(diff "$WORK/expected.same" "$WORK/got.same" >"$WORK/diff" && echo as on the page), status $st"
	# what the page would have to say
	sed 's/^/#   /' "$WORK/diff"
	typed=
	: >"$WORK/expected"
}

: >"$WORK/expected"
block='' file='' typed=''
while IFS= read -r text; do
	case $block/$text in
	/'<!-- /'*)
		file=${text#<!-- }
		file=${file% -->}
		;;
	/'```console') block=console ;;
	/'```')
		block='file'
		: >"$file"
		;;
	/'```'*) block=other ;;
	/*) ;;
	*/'```')
		check
		block='' file=''
		;;
	file/*) printf '%s\n' "$text" >>"$file" ;;
	console/'# '* | console/'client$ '*)
		check
		typed=${text#* }
		typed=${typed%%       # *}
		type_in "${text%%[ \$]*}" "$typed"
		;;
	console/'$ '*) check ;;
	console/*) printf '%s\n' "$text" >>"$WORK/expected" ;;
	esac
done <"$page"

is "nothing of kport is left in /usr/local" "" "$(find /usr/local -type f -o -type l | sort | diff "$WORK/usr.local" -)"
is "nothing of kport is left in pf" "" "$(pfctl -sn 2>/dev/null; anchors)"
is "nor in rc.conf" "" "$(cat /etc/rc.conf)"
is "pf.conf is the page's" "$(awk '/^<!-- \/etc\/pf.conf/ { f = 1; next } f && /^```$/ { if (n++) exit; next } f' "$page")" "$(cat /etc/pf.conf)"
