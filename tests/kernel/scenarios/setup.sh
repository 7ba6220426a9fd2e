#!/bin/sh
# kport setup: what it writes is taken by pfctl(8), works as at boot, and is taken out again without a trace.
# backends: native

network
cat >/etc/pf.conf <<'END'
# an admin's own
ext_if = "wan0"
set block-policy drop
table <friends> persist { 192.0.2.0/24 }

nat on $ext_if inet from 10.1.0.0/24 to any -> ($ext_if:0)

block log all
pass out quick on $ext_if
pass quick inet6 proto ipv6-icmp
pass in on $ext_if inet proto tcp from <friends> to ($ext_if) port 22
END
printf '%s\n' '# an admin'"'"'s own' 'hostname="kport.example"' >/etc/rc.conf
printf '%s\n' '# an admin'"'"'s own' 'kern.coredump=0' >/etc/sysctl.conf
rm -rf /etc/sysctl.kld.d
sums() { (cd /etc && cksum pf.conf rc.conf sysctl.conf; stat -f '%N %Su %Sg %Sp' pf.conf rc.conf sysctl.conf; ls sysctl.kld.d) 2>&1; }
sums >"$WORK/sums"

gives 0 setup
sums >"$WORK/sums.after"
is "without --write nothing is written" "" "$(diff "$WORK/sums" "$WORK/sums.after")"
gives 0 setup --write
is "pfctl takes the file" 0 "$(pfctl -nf /etc/pf.conf >/dev/null 2>&1; echo $?)"
is "sh takes rc.conf" 0 "$(sh -n /etc/rc.conf; echo $?)"
gives 0 setup
cp /etc/pf.conf "$WORK/written"
gives 0 setup --write
is "again writes nothing" "" "$(diff "$WORK/written" /etc/pf.conf)"
gives 0 setup --undo
sums >"$WORK/sums.after"
is "undo leaves no trace" "" "$(diff "$WORK/sums" "$WORK/sums.after")"

# a boot: nothing loaded, /var/run empty, and rc(8)'s scripts in their order
gives 0 setup --write
pfctl -q -d
pfctl -q -F all
forwarding 0
rm -rf /var/run/kport
sed "s#%%PREFIX%%/bin/kport#$KPORT#g" "$here/../../packaging/freebsd/files/kport.in" >"$WORK/kport.rc"
chmod 755 "$WORK/kport.rc"
rcorder /etc/rc.d/* "$WORK/kport.rc" 2>/dev/null | grep -nE '/(pf|jail|kport\.rc)$' | sed 's/.*\///' >"$WORK/order"
is "rc(8) starts pf, kport, jail in this order" "pf kport.rc jail" "$(tr '\n' ' ' <"$WORK/order" | sed 's/ $//')"
for script in sysctl routing pf; do service $script start >>"$WORK/boot" 2>&1; done
sh "$WORK/kport.rc" onestart >>"$WORK/boot" 2>&1
is "forwarding after boot" "1 1" "$(sysctl -n net.inet.ip.forwarding net.inet6.ip6.forwarding | tr '\n' ' ' | sed 's/ $//')"
is "pf after boot" 1 "$(pfctl -si 2>/dev/null | grep -c '^Status: Enabled')"
default_routes
gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,8080=web tcp,2001:db8::1,8080=web tcp,192.0.2.1,8081=- tcp,10.0.0.2,80=-
gives 0 doctor

# the service afterwards: what a flush lost, and what is gone
pfctl -q -a kport/web -F nat
sh "$WORK/kport.rc" onestart >>"$WORK/boot" 2>&1
asks outside tcp,192.0.2.1,8080=web
gives 0 unpublish web

# the lines of earlier versions, one of them in an included file: they work, are turned, work again, and are turned back
cp /etc/pf.conf "$WORK/written"
printf '%s\n' 'rdr-anchor "kport/*" # mine' >/etc/kport.rdr.conf
sed 's,^rdr-anchor.*,include "/etc/kport.rdr.conf",; s,"kport" # kport setup,"kport/*",' "$WORK/written" >/etc/pf.conf
cat /etc/pf.conf /etc/kport.rdr.conf >"$WORK/earlier"
pfctl -q -f /etc/pf.conf
gives 0 publish web 8080:80
asks outside tcp,192.0.2.1,8080=web
k doctor
says 'pf'"'"'s main ruleset calls "kport/*"'
gives 0 setup --write
pfctl -q -f /etc/pf.conf
is "no call by wildcard is left" 0 "$(pfctl -sn -P 2>/dev/null | grep -c 'kport/\*'; pfctl -sr -P 2>/dev/null | grep 'kport/\*')"
asks outside tcp,192.0.2.1,8080=web tcp,192.0.2.1,8081=-
k doctor
is "and doctor has nothing to say of them" 0 "$(grep -c 'kport/\*' "$WORK/out")"
gives 0 setup --undo
cat /etc/pf.conf /etc/kport.rdr.conf >"$WORK/undone"
is "undo turns them back" "" "$(diff "$WORK/earlier" "$WORK/undone")"
gives 0 unpublish web
rm -f /etc/kport.rdr.conf
cp "$WORK/written" /etc/pf.conf

# files that it must not make worse
cp /etc/pf.conf "$WORK/written"
printf 'pass in on { wan0\n' >/etc/pf.conf
cksum /etc/pf.conf >"$WORK/broken"
k setup --write
is "a pf.conf that pfctl does not take is refused" yes "$([ "$st" != 0 ] && echo yes)"
is "and left as it is" "$(cat "$WORK/broken")" "$(cksum /etc/pf.conf)"
