#!/bin/sh
# Stands in for pfctl(8) and sysctl(8) in tests/suite/setup.rs: says what it was called with in a file "log" in the working
# directory, and refuses a pf.conf where there is a file "refuse", a value where there is a file "refuse-sysctl".
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
