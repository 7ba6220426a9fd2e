/*
 * The other end of tests/kernel: a server that answers with who it is and
 * whom it saw, a client that says who answered, and a process that is timed
 * or killed.
 *
 *	cc -O2 -o peer peer.c
 *
 *	peer serve NAME PROTOCOL,PORT[-PORT][,ADDRESS] ...
 *	peer ask [-t ms] [+]PROTOCOL,ADDRESS,PORT[,SOURCE[,SOURCE-PORT]] ...
 *	peer hold [-t ms] PROTOCOL,ADDRESS,PORT[,SOURCE[,SOURCE-PORT]]
 *	peer run [-k ms] COMMAND [ARGUMENT ...]
 *
 * serve binds, goes into the background and prints its pid; it returns when
 * every port can be asked. Without an address it serves all of them, of both
 * families where there are both. It answers whatever it reads with one line:
 * NAME, the address and port that it came from, and the port that it came to.
 *
 * ask puts all of its questions at the same time, keeps each connection until
 * all are decided, and prints a line for each, in their order: the question
 * and the answer, or "refused", "nothing" (after -t milliseconds, 3000 unless
 * given) or "error" and the reason. The status is 0 if all were answered. A
 * "+" is for a question that should be answered: it has ten times as long, and
 * the others are not given up before it, so that a slow machine does not fail.
 *
 * hold opens one connection, prints its answer, and asks again over it for
 * each line of standard input: it prints "alive" or "dead". A line that begins
 * with "+" has ten times as long.
 *
 * run prints the milliseconds that a command took and its status, or "killed":
 * with -k it gets a SIGKILL after so many milliseconds. Its output is dropped.
 */
#include <sys/types.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include <netinet/in.h>

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_SOCKETS 4096
#define LINE 256
/* times the patience, for an answer that is expected */
#define PATIENT 10

static const char *name;
static long patience = 3000;

static long
now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return (at.tv_sec * 1000 + at.tv_nsec / 1000000);
}

static void
usage(void)
{
	fprintf(stderr, "usage: peer serve name protocol,port[-port][,address] ...\n"
	    "       peer ask [-t ms] protocol,address,port[,source[,port]] ...\n"
	    "       peer hold [-t ms] protocol,address,port[,source[,port]]\n"
	    "       peer run [-k ms] command [argument ...]\n");
	exit(64);
}

static long
number(const char *text, long most)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*text == '\0' || *end != '\0' || value < 0 || value > most)
		errx(64, "not a number from 0 to %ld: %s", most, text);
	return (value);
}

/* The socket type and protocol of a name. */
static void
protocol(const char *text, int *type, int *proto)
{
	if (strcmp(text, "tcp") == 0)
		*type = SOCK_STREAM, *proto = IPPROTO_TCP;
	else if (strcmp(text, "udp") == 0)
		*type = SOCK_DGRAM, *proto = IPPROTO_UDP;
	else if (strcmp(text, "sctp") == 0)
		*type = SOCK_STREAM, *proto = IPPROTO_SCTP;
	else
		errx(64, "not a protocol: %s", text);
}

/* A numeric address; a port of NULL is 0. */
static socklen_t
address(const char *text, const char *port, struct sockaddr_storage *into)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
		.ai_socktype = SOCK_STREAM }, *found;
	socklen_t length;
	int error;

	if ((error = getaddrinfo(text, port == NULL ? "0" : port, &hints,
	    &found)) != 0)
		errx(64, "%s: %s", text, gai_strerror(error));
	length = found->ai_addrlen;
	memcpy(into, found->ai_addr, length);
	freeaddrinfo(found);
	return (length);
}

static void
unblock(int fd)
{
	if (fcntl(fd, F_SETFL, O_NONBLOCK) == -1)
		err(1, "fcntl");
}

/* Splits text at commas into at most most fields; what is left out is NULL. */
static void
split(char *text, char **fields, size_t most)
{
	size_t i;

	for (i = 0; i < most; i++)
		fields[i] = strsep(&text, ",");
	if (text != NULL || fields[0] == NULL)
		usage();
}

/* serve */

static struct pollfd sockets[MAX_SOCKETS];
/* what a socket of sockets is */
static enum role { LISTENS, TALKS, DATAGRAMS } roles[MAX_SOCKETS];
static size_t count;

static void
add(int fd, enum role role)
{
	if (count == MAX_SOCKETS)
		errx(1, "more than %d sockets", MAX_SOCKETS);
	unblock(fd);
	sockets[count].fd = fd;
	sockets[count].events = POLLIN;
	roles[count++] = role;
}

/* Whether it is served; a family that is not there is not an error. */
static int
serve_one(int type, int proto, const char *host, const char *port, int given)
{
	struct sockaddr_storage at;
	socklen_t length = address(host, port, &at);
	int fd, on = 1;

	if ((fd = socket(at.ss_family, type, proto)) == -1) {
		if (!given && (errno == EAFNOSUPPORT || errno == EPROTONOSUPPORT))
			return (0);
		err(1, "socket for %s", host);
	}
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if (at.ss_family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&at, length) == -1) {
		if (!given && errno == EADDRNOTAVAIL) {
			close(fd);
			return (0);
		}
		err(1, "bind to %s port %s", host, port);
	}
	if (type == SOCK_STREAM && listen(fd, 128) == -1)
		err(1, "listen on %s port %s", host, port);
	add(fd, type == SOCK_STREAM ? LISTENS : DATAGRAMS);
	return (1);
}

static void
serve_ports(char *text)
{
	char *fields[3], *last, port[8];
	int type, proto, served;
	long from, to;

	split(text, fields, 3);
	if (fields[1] == NULL)
		usage();
	protocol(fields[0], &type, &proto);
	last = fields[1];
	from = number(strsep(&last, "-"), 65535);
	to = last == NULL ? from : number(last, 65535);
	for (; from <= to; from++) {
		snprintf(port, sizeof(port), "%ld", from);
		if (fields[2] != NULL)
			served = serve_one(type, proto, fields[2], port, 1);
		else
			served = serve_one(type, proto, "0.0.0.0", port, 0) |
			    serve_one(type, proto, "::", port, 0);
		if (!served)
			errx(1, "port %s cannot be served in either family", port);
	}
}

static unsigned
port_of(const struct sockaddr_storage *at)
{
	return (ntohs(at->ss_family == AF_INET6 ?
	    ((const struct sockaddr_in6 *)at)->sin6_port :
	    ((const struct sockaddr_in *)at)->sin_port));
}

/* Reads what there is, and answers it. Whether the socket is done with. */
static int
answer(size_t i)
{
	struct sockaddr_storage from = { 0 }, own = { 0 };
	socklen_t length = sizeof(from), own_length = sizeof(own);
	char read[LINE], text[LINE], host[NI_MAXHOST];
	int fd = sockets[i].fd;
	ssize_t got;

	got = recvfrom(fd, read, sizeof(read), 0, (struct sockaddr *)&from,
	    &length);
	if (got <= 0 && roles[i] == TALKS)
		return (got == 0 || (errno != EAGAIN && errno != EINTR));
	if (got <= 0)
		return (0);
	if (roles[i] == TALKS) {
		length = sizeof(from);
		if (getpeername(fd, (struct sockaddr *)&from, &length) == -1)
			return (1);
	}
	if (getsockname(fd, (struct sockaddr *)&own, &own_length) == -1 ||
	    getnameinfo((struct sockaddr *)&from, length, host, sizeof(host),
	    NULL, 0, NI_NUMERICHOST) != 0)
		return (roles[i] == TALKS);
	snprintf(text, sizeof(text), "%.64s %.64s %u %u\n", name, host,
	    port_of(&from), port_of(&own));
	if (roles[i] == TALKS)
		return (send(fd, text, strlen(text), 0) == -1);
	sendto(fd, text, strlen(text), 0, (struct sockaddr *)&from, length);
	return (0);
}

static void
serve(int argc, char *argv[])
{
	int ready[2], fd, i;
	char byte = 0;
	size_t at;
	pid_t pid;

	if (argc < 3)
		usage();
	name = argv[1];
	if (pipe(ready) == -1 || (pid = fork()) == -1)
		err(1, "peer");
	if (pid != 0) {
		close(ready[1]);
		if (read(ready[0], &byte, 1) != 1)
			exit(1);
		printf("%ld\n", (long)pid);
		exit(0);
	}
	for (i = 2; i < argc; i++)
		serve_ports(argv[i]);
	setsid();
	if ((fd = open("/dev/null", O_RDWR)) == -1)
		err(1, "/dev/null");
	for (i = 0; i < 3; i++)
		dup2(fd, i);
	if (write(ready[1], &byte, 1) != 1)
		exit(1);
	close(ready[1]);
	close(ready[0]);
	for (;;) {
		if (poll(sockets, count, -1) == -1)
			continue;
		/* from the end, as what is done with goes and the last moves up */
		for (at = count; at-- > 0;) {
			if (sockets[at].revents == 0)
				continue;
			if (roles[at] == LISTENS) {
				fd = accept(sockets[at].fd, NULL, NULL);
				if (fd != -1 && count < MAX_SOCKETS)
					add(fd, TALKS);
				else if (fd != -1)
					close(fd);
			} else if (answer(at)) {
				close(sockets[at].fd);
				count--;
				sockets[at] = sockets[count];
				roles[at] = roles[count];
			}
		}
	}
}

/* ask */

struct question {
	const char *text;
	char answer[LINE];
	int type, connected, decided, expected;
};

static void
decide(struct question *q, const char *said)
{
	snprintf(q->answer, sizeof(q->answer), "%s", said);
	q->answer[strcspn(q->answer, "\n")] = '\0';
	q->decided = 1;
}

static void
failed(struct question *q, int error)
{
	char text[LINE];

	if (error == ECONNREFUSED || error == ECONNRESET) {
		decide(q, "refused");
		return;
	}
	snprintf(text, sizeof(text), "error %s", strerror(error));
	decide(q, text);
}

/* Opens the socket of a question and begins to connect it; -1 if it failed. */
static int
begin(struct question *q)
{
	struct linger linger = { .l_onoff = 1, .l_linger = 0 };
	struct sockaddr_storage to, from;
	socklen_t length, from_length = 0;
	char *copy, *fields[5];
	int fd, on = 1, proto;

	if ((copy = strdup(q->text)) == NULL)
		err(1, "strdup");
	split(copy, fields, 5);
	if (fields[2] == NULL)
		usage();
	protocol(fields[0], &q->type, &proto);
	length = address(fields[1], fields[2], &to);
	if (fields[3] != NULL)
		from_length = address(fields[3], fields[4], &from);
	free(copy);
	if ((fd = socket(to.ss_family, q->type, proto)) == -1) {
		failed(q, errno);
		return (-1);
	}
	unblock(fd);
	/* it ends with a reset, so that the same ports can be used at once */
	if (q->type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	if ((from_length != 0 &&
	    bind(fd, (struct sockaddr *)&from, from_length) == -1) ||
	    (connect(fd, (struct sockaddr *)&to, length) == -1 &&
	    errno != EINPROGRESS)) {
		failed(q, errno);
		close(fd);
		return (-1);
	}
	q->connected = q->type == SOCK_DGRAM;
	return (fd);
}

static void
put(struct question *q, int fd)
{
	if (send(fd, "?\n", 2, 0) == -1 && errno != EAGAIN && errno != ENOBUFS)
		failed(q, errno);
}

/* What a socket that is ready has to say. */
static void
hear(struct question *q, struct pollfd *socket)
{
	socklen_t length = sizeof(int);
	char text[LINE];
	int error = 0;
	ssize_t got;

	if (!q->connected) {
		getsockopt(socket->fd, SOL_SOCKET, SO_ERROR, &error, &length);
		if (error != 0) {
			failed(q, error);
			return;
		}
		q->connected = 1;
		socket->events = POLLIN;
		put(q, socket->fd);
		return;
	}
	got = recv(socket->fd, text, sizeof(text) - 1, 0);
	if (got > 0) {
		text[got] = '\0';
		decide(q, text);
	} else if (got == 0)
		decide(q, "refused");
	else if (errno != EAGAIN && errno != EINTR)
		failed(q, errno);
}

static int
ask(char *texts[], size_t questions)
{
	static struct question all[MAX_SOCKETS];
	long start = now(), again = start + 500, wait;
	size_t i, open, expected;

	if (questions == 0 || questions > MAX_SOCKETS)
		usage();
	for (i = 0; i < questions; i++) {
		all[i].expected = texts[i][0] == '+';
		all[i].text = texts[i] + all[i].expected;
		sockets[i].fd = begin(&all[i]);
		sockets[i].events = all[i].connected ? POLLIN : POLLOUT;
		if (sockets[i].fd != -1 && all[i].connected)
			put(&all[i], sockets[i].fd);
	}
	for (;;) {
		for (open = 0, expected = 0, i = 0; i < questions; i++)
			if (all[i].decided)
				sockets[i].events = 0;
			else {
				open++;
				expected += (size_t)all[i].expected;
			}
		wait = start + (expected ? PATIENT : 1) * patience - now();
		if (open == 0 || wait <= 0)
			break;
		/* a datagram may be lost while an address is resolved */
		if (now() >= again) {
			for (i = 0; i < questions; i++)
				if (!all[i].decided && all[i].type == SOCK_DGRAM)
					put(&all[i], sockets[i].fd);
			again = now() + 500;
		}
		if (poll(sockets, questions, wait > 500 ? 500 : (int)wait) == -1)
			err(1, "poll");
		for (i = 0; i < questions; i++)
			if (!all[i].decided && sockets[i].revents != 0)
				hear(&all[i], &sockets[i]);
	}
	for (open = 0, i = 0; i < questions; i++) {
		if (!all[i].decided)
			decide(&all[i], "nothing");
		printf("%s %s\n", all[i].text, all[i].answer);
		if (strcmp(all[i].answer, "nothing") == 0 ||
		    strcmp(all[i].answer, "refused") == 0 ||
		    strncmp(all[i].answer, "error ", 6) == 0)
			open++;
	}
	return (open != 0);
}

/* hold */

/* Asks over a connection that is open, and waits for the answer. */
static int
once(struct question *q, struct pollfd *socket)
{
	long end = now() + (q->expected ? PATIENT : 1) * patience;

	q->decided = 0;
	socket->events = q->connected ? POLLIN : POLLOUT;
	if (q->connected)
		put(q, socket->fd);
	while (!q->decided && now() < end)
		if (poll(socket, 1, (int)(end - now())) > 0)
			hear(q, socket);
	return (q->decided && strcmp(q->answer, "refused") != 0 &&
	    strncmp(q->answer, "error ", 6) != 0);
}

static int
hold(char *text)
{
	struct question q = { .text = text, .expected = 1 };
	struct pollfd socket;
	char line[LINE];

	setvbuf(stdout, NULL, _IOLBF, 0);
	socket.fd = begin(&q);
	if (socket.fd == -1 || !once(&q, &socket)) {
		printf("%s\n", q.decided ? q.answer : "nothing");
		return (1);
	}
	printf("%s\n", q.answer);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		q.expected = line[0] == '+';
		printf("%s\n", once(&q, &socket) ? "alive" : "dead");
	}
	return (0);
}

/* run */

static int
run(char *argv[], long after)
{
	long start = now();
	int null, status;
	pid_t pid;

	if ((pid = fork()) == -1)
		err(1, "fork");
	if (pid == 0) {
		if ((null = open("/dev/null", O_RDWR)) == -1)
			_exit(127);
		dup2(null, STDIN_FILENO);
		dup2(null, STDOUT_FILENO);
		dup2(null, STDERR_FILENO);
		execvp(argv[0], argv);
		_exit(127);
	}
	while (waitpid(pid, &status, after < 0 ? 0 : WNOHANG) == 0) {
		if (now() - start >= after) {
			kill(pid, SIGKILL);
			after = -1;
		} else
			poll(NULL, 0, 1);
	}
	if (WIFEXITED(status))
		printf("%ld %d\n", now() - start, WEXITSTATUS(status));
	else
		printf("%ld killed\n", now() - start);
	return (0);
}

int
main(int argc, char *argv[])
{
	const char *verb;
	long after = -1;
	int ch;

	if (argc < 2)
		usage();
	signal(SIGPIPE, SIG_IGN);
	verb = argv[1];
	argc--, argv++;
	if (strcmp(verb, "serve") == 0)
		serve(argc, argv);
	/* a "+" for the getopt(3) that would look after the command */
	while ((ch = getopt(argc, argv, "+k:t:")) != -1)
		switch (ch) {
		case 'k':
			after = number(optarg, 1000000);
			break;
		case 't':
			patience = number(optarg, 1000000);
			break;
		default:
			usage();
		}
	argc -= optind, argv += optind;
	if (argc < 1)
		usage();
	if (strcmp(verb, "ask") == 0)
		return (ask(argv, (size_t)argc));
	if (strcmp(verb, "hold") == 0 && argc == 1)
		return (hold(argv[0]));
	if (strcmp(verb, "run") == 0)
		return (run(argv, after));
	usage();
}
