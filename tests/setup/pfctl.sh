#!/bin/sh
# Stands in for pfctl(8) and sysctl(8) in tests/suite/setup.rs: writes its arguments to a file "log" in its own directory, and
# refuses a pf.conf if there is a file "refuse", a value if there is a file "refuse-sysctl".
cd "${0%/*}" || exit 1
echo "$*" >>log
case $* in
*.conf*)
	if [ -e refuse ]; then
		echo "pf.conf:3: syntax error" >&2
		exit 1
	fi
	;;
"-s info") if [ -e enabled ]; then echo "Status: Enabled for 0 days 00:01:02           Debug: Urgent"; fi ;;
*=*)
	if [ -e refuse-sysctl ]; then
		echo "sysctl: $*: Operation not permitted" >&2
		exit 1
	fi
	;;
esac
exit 0
