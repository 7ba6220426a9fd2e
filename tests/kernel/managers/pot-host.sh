# A host with pot, for pot.sh and nomad.sh: zfs(8) and potnet(1) are stand-ins of ours. Sourced by them.
# shellcheck shell=sh

PATH=$place/pot/bin:$here/managers:$PATH
export ZFS_STATE="$place/zfs"
if [ -d "$place/pot" ]; then
	TRANSLATION=$with_pot
	main_rules
	return
fi
cp -R "$KPORT_MANAGERS/pot" "$place/pot"
pots=$place/pots
cat >"$place/pot/etc/pot/pot.conf" <<END
POT_ZFS_ROOT=zroot/pot
POT_FS_ROOT=$pots
POT_CACHE=$place/cache
POT_TMP=$place/tmp
POT_GROUP=wheel
POT_NETWORK=10.8.0.0/24
POT_NETMASK=255.255.255.0
POT_GATEWAY=10.8.0.1
POT_EXTIF=wan0
END
# the rules as in docs/managers/pot.md: in the file that pot loads, with its anchors and kport's
plain=$TRANSLATION
TRANSLATION="nat-anchor pot-nat
rdr-anchor \"pot-rdr/*\"
$TRANSLATION"
with_pot=$TRANSLATION
main_rules
cp "$WORK/pf.conf" /etc/pf.conf

# the release from which it creates pots
mkdir -p "$place/cache" "$place/tmp"
tree "$place/base"
tar -C "$place/base" -cf "$place/cache/15.1-RELEASE_base.txz" .
manifests=/usr/local/share/freebsd/MANIFESTS
made $manifests
mkdir -p $manifests
manifest=$manifests/$(sysctl -n hw.machine)-$(sysctl -n hw.machine_arch)-15.1-RELEASE
made "$manifest"
printf 'base.txz\t%s\t1\tbase\n' "$(sha256 -q "$place/cache/15.1-RELEASE_base.txz")" >"$manifest"
touch /etc/resolv.conf

runs 0 pot init -m
