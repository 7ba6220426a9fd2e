#!/bin/sh
# Who can reach what: each row of the table in docs/who-can-reach-what.md as a packet, and what `kport trace` says of it.
# backends: native pfctl

table=$here/../../docs/who-can-reach-what.md
[ -f "$table" ] || { not_ok "there is no $table"; exit 0; }
network
tab=$(printf '\t')

# question ROW: who asks, and what; fails if the row is not known here
question() {
	# shellcheck disable=SC2221,SC2222 # the longer ones first
	case $1 in
	'outside -> '*) who=outside ;;
	'jail of another network -> '*) who=other ;;
	'jail of the same bridge -> '*) who=app ;;
	'the jail itself -> '*) who=web ;;
	'host -> '*) who=host ;;
	*) return 1 ;;
	esac
	case ${1#* -> } in
	'host address') asked=tcp,192.0.2.1,8080 ;;
	'host address, alias') asked=tcp,192.0.2.7,8080 ;;
	'host address, tcp6') asked=tcp,2001:db8::1,8080 ;;
	'host address, udp') asked=udp,192.0.2.1,5353 ;;
	'host address, flat') asked=tcp,192.0.2.1,8100 ;;
	'jail address directly') asked=tcp,10.0.0.2,80 ;;
	'jail address directly, tcp6' | 'jail address, tcp6') asked=tcp,fd00::2,80 ;;
	127.0.0.1) asked=tcp,127.0.0.1,8080 ;;
	'127.0.0.1, udp') asked=udp,127.0.0.1,5353 ;;
	::1) asked=tcp,::1,8080 ;;
	*) return 1 ;;
	esac
}

# the rows as lines: who, what is asked, the answers by column
: >"$WORK/rows"
sed -n '/<!-- table -->/,/<!-- end -->/s/^| \(.* -> .*\) |$/\1/p' "$table" | grep -v '^client ->' | sed "s/ | /$tab/g" >"$WORK/table"
while IFS=$tab read -r row one two three; do
	if question "$row"; then
		echo "$who $asked $one $two $three"
	else
		echo "unknown $row" >&2
	fi
done <"$WORK/table" >"$WORK/rows" 2>"$WORK/unknown"
is "every row is known here" "" "$(cat "$WORK/unknown")"
is "there are rows" yes "$([ "$(wc -l <"$WORK/rows")" -ge 20 ] && echo yes)"

# traced WHO QUESTION EXPECTED: trace says the same. Once is enough: it reads the rules by either backend.
traced() {
	protocol=${2%%,*} to=${2#*,}
	port=${to##*,} to=${to%,*}
	case $1-$to in
	outside-*:*) from=2001:db8::100 ;;
	outside-*) from=192.0.2.100 ;;
	host-*) from=$to ;;
	*) from=$1 ;;
	esac
	case $to in *:*) to="[$to]" ;; esac
	k trace "$protocol" "$from" "$to:$port"
	case $3-$st in
	yes-0 | no-5) ok "and trace says the same of $1 $2" ;;
	*) not_ok "trace of $1 $2: expected $3, got status $st: $(line "$(tail -n 1 "$WORK/out")")" ;;
	esac
}

# rows COLUMN: what each asker is answered, all of its questions at once
rows() {
	for asker_of in outside other app web host; do
		set --
		while read -r who asked one two three; do
			[ "$who" = "$asker_of" ] || continue
			eval "expected=\$$column"
			case $asked in *,8100) by=flat ;; *) by=web ;; esac
			[ "$expected" = yes ] || by=-
			set -- "$@" "$asked=$by"
		done <"$WORK/rows"
		asks $asker_of "$@"
	done
	[ "$BACKEND" = native ] || return 0
	while read -r who asked one two three; do
		eval "expected=\$$column"
		traced "$who" "$asked" "$expected"
	done <"$WORK/rows"
}

publish_all() {
	gives 0 publish web "$@" 8080:80 5353:53/udp
	gives 0 publish flat "$@" 8100:80
}

note "default"
publish_all
column=one
rows
note "with hairpin"
publish_all --hairpin
column=two
rows
note "with hairpin and host access"
# counts from when pf is enabled
pfctl -q -d
set_sysctl net.pf.filter_local=1
main_rules 'pass quick on lo0 no state'
pfctl -q -e
publish_all --hairpin --host-access
column=three
rows

gives 0 unpublish web
gives 0 unpublish flat
asks outside tcp,192.0.2.1,8080=- tcp,192.0.2.1,8100=-
asks other tcp,10.0.0.2,80=-
