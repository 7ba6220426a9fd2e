#!/bin/sh
# Where a port is published: an interface, a group, an address, an alias, any address, an interface that is created later, a tunnel.
# backends: native pfctl

network
ifconfig wan0 group uplinks
ifconfig wan1 group uplinks

gives 0 publish web wan1:9101:80 uplinks:9102:80 192.0.2.7:9103:80 '[2001:db8::1]:9104:80' '*:9105:80' 0.0.0.0:9106:80 \
	'[::]:9107:80'
asks outside tcp,192.0.2.1,9101=- tcp,203.0.113.1,9101=- \
	tcp,192.0.2.1,9102=web tcp,2001:db8::1,9102=web \
	tcp,192.0.2.7,9103=web tcp,192.0.2.1,9103=- tcp,2001:db8::1,9103=- \
	tcp,2001:db8::1,9104=web tcp,192.0.2.1,9104=- \
	tcp,192.0.2.1,9105=web tcp,192.0.2.7,9105=web tcp,2001:db8::1,9105=web \
	tcp,192.0.2.1,9106=web tcp,2001:db8::1,9106=- \
	tcp,192.0.2.1,9107=- tcp,2001:db8::1,9107=web
asks uplink tcp,203.0.113.1,9101=web tcp,203.0.113.1,9102=web tcp,203.0.113.1,9105=web tcp,203.0.113.1,9106=web \
	tcp,2001:db8:1::1,9107=web
# a place that names no interface is for packets from any interface
asks other tcp,192.0.2.1,9105=web tcp,10.1.0.1,9105=web tcp,192.0.2.7,9103=web tcp,192.0.2.1,9102=-

# an address of the interface that is not named
gives 0 publish web wan0:9108:80
asks outside tcp,192.0.2.1,9108=web tcp,192.0.2.7,9108=web tcp,2001:db8::1,9108=web tcp,203.0.113.1,9108=-

# an interface that comes later
gives 0 publish web late7:9109:80
stack later
epair late7 later
ifconfig late7 -group epair
ifconfig late7 inet 198.51.100.1/24
jexec later ifconfig "$far" inet 198.51.100.100/24 up
asks later tcp,198.51.100.1,9109=web@198.51.100.100

# a tunnel: its other end is the uplink's
tunnel=$(ifconfig gif create 2>/dev/null)
if [ -n "$tunnel" ]; then
	ifconfig "$tunnel" tunnel 203.0.113.1 203.0.113.100
	ifconfig "$tunnel" inet 10.99.0.1 10.99.0.2
	other_end=$(jexec uplink ifconfig gif create)
	jexec uplink ifconfig "$other_end" tunnel 203.0.113.100 203.0.113.1
	jexec uplink ifconfig "$other_end" inet 10.99.0.2 10.99.0.1
	main_rules 'pass quick on wan1 proto ipencap'
	gives 0 publish web "$tunnel:9110:80"
	asks uplink tcp,10.99.0.1,9110=web@10.99.0.2 tcp,203.0.113.1,9110=-
else
	skip "no gif(4)"
fi

# an address of nobody here, a place that says too little
gives 1 publish web 198.18.0.1:9111:80
gives 2 publish web '[::1:9111:80'
gives 0 unpublish web
