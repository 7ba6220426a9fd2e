/*
 * A NIF of kport for Erlang and Elixir; kport.ex is its module. Calls can wait
 * for locks and for pf, so they run on dirty I/O schedulers.
 *
 *	cc -shared -fPIC kport_nif.c -I "$ERL_ROOT/usr/include" \
 *	    $(pkg-config --cflags --libs kport) -o kport_nif.so
 *
 * Strings are binaries in both directions. A failure is
 * {error, {Status, Message}}, where Status is the name of a KPORT_ERR_
 * constant. A change is {ok, #{changed, ended, notes, ports}}: whether pf was
 * changed, how many states were ended, the notes, and the redirects.
 */
#include <netinet/in.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <erl_nif.h>
#include <kport.h>

static ERL_NIF_TERM
atom(ErlNifEnv *env, const char *name)
{
	return (enif_make_atom(env, name));
}

static ERL_NIF_TERM
binary(ErlNifEnv *env, const char *text)
{
	ERL_NIF_TERM term;
	size_t size;

	if (text == NULL)
		return (atom(env, "nil"));
	size = strlen(text);
	memcpy(enif_make_new_binary(env, size, &term), text, size);
	return (term);
}

/* A copy of a binary as a string, to be freed with enif_free(), or NULL. */
static char *
text(ErlNifEnv *env, ERL_NIF_TERM term)
{
	ErlNifBinary bin;
	char *copy;

	if (!enif_inspect_binary(env, term, &bin) ||
	    memchr(bin.data, '\0', bin.size) != NULL ||
	    (copy = enif_alloc(bin.size + 1)) == NULL)
		return (NULL);
	memcpy(copy, bin.data, bin.size);
	copy[bin.size] = '\0';
	return (copy);
}

/* Frees the error. */
static ERL_NIF_TERM
failed(ErlNifEnv *env, struct kport_error *error)
{
	static const char *const names[] = { "ok", "argument", "spec",
	    "conflict", "permission", "unavailable", "busy", "system",
	    "unsupported", "internal" };
	ERL_NIF_TERM term;
	size_t status;

	status = (size_t)kport_error_status(error);
	if (status >= sizeof(names) / sizeof(names[0]))
		status = KPORT_ERR_INTERNAL;
	term = enif_make_tuple2(env, atom(env, "error"),
	    enif_make_tuple2(env, atom(env, names[status]),
	    binary(env, kport_error_message(error))));
	kport_error_free(error);
	return (term);
}

static const struct {
	const char *key;
	size_t field;
} texts[] = {
	{ "backend", offsetof(struct kport_options, backend) },
	{ "state_dir", offsetof(struct kport_options, state_dir) },
	{ "addresses", offsetof(struct kport_options, addresses) },
	{ "gateway", offsetof(struct kport_options, gateway) },
	{ "reach", offsetof(struct kport_options, reach) },
	{ "sources", offsetof(struct kport_options, sources) },
	{ "reply_to", offsetof(struct kport_options, reply_to) },
	{ "trust", offsetof(struct kport_options, trust) },
	{ "families", offsetof(struct kport_options, families) },
}, numbers[] = {
	{ "timeout_ms", offsetof(struct kport_options, timeout_ms) },
	{ "wait_ms", offsetof(struct kport_options, wait_ms) },
	{ "max_connections", offsetof(struct kport_options, max_connections) },
	{ "max_connections_per_source",
	    offsetof(struct kport_options, max_connections_per_source) },
	{ "rate_connections",
	    offsetof(struct kport_options, rate_connections) },
	{ "rate_seconds", offsetof(struct kport_options, rate_seconds) },
};

static const struct {
	const char *key;
	uint32_t flag;
} flags[] = {
	{ "force", KPORT_FORCE },
	{ "allow_inert", KPORT_ALLOW_INERT },
	{ "hairpin", KPORT_HAIRPIN },
	{ "host_access", KPORT_HOST_ACCESS },
	{ "log", KPORT_LOG },
	{ "no_quick", KPORT_NO_QUICK },
	{ "add", KPORT_ADD },
	{ "no_jail", KPORT_NO_JAIL },
	{ "masquerade", KPORT_MASQUERADE },
	{ "af_to", KPORT_AF_TO },
};

#define	COUNT(table)	(sizeof(table) / sizeof((table)[0]))

/*
 * A map of options: strings, numbers, and flags that are true or false. An
 * unknown key is an error, and is not ignored.
 */
struct settings {
	struct kport_options options;
	struct kport_outcome *outcome;
	char *texts[COUNT(texts)];
};

static void
settings_free(struct settings *settings)
{
	size_t i;

	for (i = 0; i < COUNT(texts); i++)
		enif_free(settings->texts[i]);
	kport_outcome_free(settings->outcome);
}

/* One option; 0 if it is unknown or has a wrong value. */
static int
setting(ErlNifEnv *env, struct settings *settings, const char *key,
    ERL_NIF_TERM value)
{
	char *options = (char *)&settings->options;
	unsigned int number;
	int jid;
	size_t i;

	for (i = 0; i < COUNT(texts); i++)
		if (strcmp(key, texts[i].key) == 0) {
			if ((settings->texts[i] = text(env, value)) == NULL)
				return (0);
			memcpy(options + texts[i].field, &settings->texts[i],
			    sizeof(char *));
			return (1);
		}
	for (i = 0; i < COUNT(numbers); i++)
		if (strcmp(key, numbers[i].key) == 0) {
			if (!enif_get_uint(env, value, &number))
				return (0);
			memcpy(options + numbers[i].field, &number,
			    sizeof(uint32_t));
			return (1);
		}
	for (i = 0; i < COUNT(flags); i++)
		if (strcmp(key, flags[i].key) == 0) {
			if (enif_is_identical(value, atom(env, "true")))
				settings->options.flags |= flags[i].flag;
			else if (!enif_is_identical(value,
			    atom(env, "false")))
				return (0);
			return (1);
		}
	if (strcmp(key, "jid") == 0) {
		if (!enif_get_int(env, value, &jid))
			return (0);
		settings->options.jid = jid;
		return (1);
	}
	if (strcmp(key, "auto_first") == 0 || strcmp(key, "auto_last") == 0) {
		if (!enif_get_uint(env, value, &number) || number > UINT16_MAX)
			return (0);
		if (strcmp(key, "auto_first") == 0)
			settings->options.auto_first = (uint16_t)number;
		else
			settings->options.auto_last = (uint16_t)number;
		return (1);
	}
	return (0);
}

static int
settings_read(ErlNifEnv *env, ERL_NIF_TERM map, struct settings *settings)
{
	static const struct kport_options init = KPORT_OPTIONS_INIT;
	ErlNifMapIterator iterator;
	ERL_NIF_TERM key, value;
	char name[32];
	int good = 1;

	memset(settings, 0, sizeof(*settings));
	settings->options = init;
	settings->options.outcome = &settings->outcome;
	if (!enif_map_iterator_create(env, map, &iterator,
	    ERL_NIF_MAP_ITERATOR_FIRST))
		return (0);
	while (good && enif_map_iterator_get_pair(env, &iterator, &key,
	    &value)) {
		good = enif_get_atom(env, key, name, sizeof(name),
		    ERL_NIF_LATIN1) > 0 && setting(env, settings, name, value);
		enif_map_iterator_next(env, &iterator);
	}
	enif_map_iterator_destroy(env, &iterator);
	if (!good)
		settings_free(settings);
	return (good);
}

/* One redirect as a map. */
static ERL_NIF_TERM
port(ErlNifEnv *env, const struct kport_entry *entry)
{
	static const char *const names[] = { "jail", "anchor", "place",
	    "protocol", "host_port", "address", "jail_port", "count", "jid",
	    "state", "packets", "bytes", "states" };
	ERL_NIF_TERM keys[COUNT(names)], values[COUNT(names)], map;
	size_t i;

	for (i = 0; i < COUNT(names); i++)
		keys[i] = atom(env, names[i]);
	values[0] = binary(env, entry->jail);
	values[1] = binary(env, entry->anchor);
	values[2] = binary(env, entry->place);
	values[3] = atom(env, entry->protocol == IPPROTO_TCP ? "tcp" :
	    entry->protocol == IPPROTO_UDP ? "udp" : "sctp");
	values[4] = enif_make_uint(env, entry->host_port);
	values[5] = binary(env, entry->address);
	values[6] = enif_make_uint(env, entry->jail_port);
	values[7] = enif_make_uint(env, entry->count);
	values[8] = enif_make_int(env, entry->jid);
	values[9] = atom(env, entry->state == KPORT_LIVE ? "live" :
	    entry->state == KPORT_INERT ? "inert" :
	    entry->state == KPORT_MISSING ? "missing" : "stale");
	values[10] = enif_make_uint64(env, entry->packets);
	values[11] = enif_make_uint64(env, entry->bytes);
	values[12] = enif_make_uint64(env, entry->states);
	if (!enif_make_map_from_arrays(env, keys, values, COUNT(names), &map))
		return (atom(env, "nil"));
	return (map);
}

/* The outcome of a call as a term; frees the error and the settings. */
static ERL_NIF_TERM
done(ErlNifEnv *env, struct settings *settings, kport_status status,
    struct kport_error *error)
{
	static const char *const names[] = { "changed", "ended", "notes",
	    "ports" };
	ERL_NIF_TERM keys[COUNT(names)], values[COUNT(names)], map;
	struct kport_outcome *outcome = settings->outcome;
	struct kport_entry entry;
	size_t i;

	if (status != KPORT_OK) {
		settings_free(settings);
		return (failed(env, error));
	}
	for (i = 0; i < COUNT(names); i++)
		keys[i] = atom(env, names[i]);
	values[0] = atom(env, kport_outcome_changed(outcome) ? "true" :
	    "false");
	values[1] = enif_make_uint64(env, kport_outcome_ended(outcome));
	values[2] = enif_make_list(env, 0);
	for (i = kport_outcome_notes(outcome); i-- > 0;)
		values[2] = enif_make_list_cell(env,
		    binary(env, kport_outcome_note(outcome, i)), values[2]);
	values[3] = enif_make_list(env, 0);
	for (i = kport_outcome_len(outcome); i-- > 0;)
		if (kport_outcome_get(outcome, i, &entry, sizeof(entry)) ==
		    KPORT_OK)
			values[3] = enif_make_list_cell(env, port(env, &entry),
			    values[3]);
	settings_free(settings);
	if (!enif_make_map_from_arrays(env, keys, values, COUNT(names), &map))
		return (enif_make_badarg(env));
	return (enif_make_tuple2(env, atom(env, "ok"), map));
}

typedef kport_status (*parser)(const char *, struct kport_spec **,
    struct kport_error **);

/* A parsed spec, to be freed with kport_spec_free(). */
static kport_status
parsed(ErlNifEnv *env, ERL_NIF_TERM term, parser parse,
    struct kport_spec **spec, struct kport_error **error, int *bad)
{
	kport_status status;
	char *specs;

	*spec = NULL;
	*error = NULL;
	if ((specs = text(env, term)) == NULL) {
		*bad = 1;
		return (KPORT_ERR_ARGUMENT);
	}
	status = parse(specs, spec, error);
	enif_free(specs);
	return (status);
}

/* check(Specs) -> {ok, Canonical} | {error, {Status, Message}} */
static ERL_NIF_TERM
checked(ErlNifEnv *env, ERL_NIF_TERM term, parser parse)
{
	struct kport_spec *spec;
	struct kport_error *error;
	ERL_NIF_TERM answer;
	int bad = 0;

	if (parsed(env, term, parse, &spec, &error, &bad) != KPORT_OK)
		return (bad ? enif_make_badarg(env) : failed(env, error));
	answer = enif_make_tuple2(env, atom(env, "ok"),
	    binary(env, kport_spec_text(spec)));
	kport_spec_free(spec);
	return (answer);
}

static ERL_NIF_TERM
check(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	(void)argc;
	return (checked(env, argv[0], kport_parse));
}

static ERL_NIF_TERM
check_kleene(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	(void)argc;
	return (checked(env, argv[0], kport_parse_kleene));
}

typedef kport_status (*action)(const char *, const struct kport_spec *,
    const struct kport_options *, struct kport_error **);

/* act(Jail, Specs, Options) */
static ERL_NIF_TERM
with_spec(ErlNifEnv *env, const ERL_NIF_TERM argv[], parser parse, action act)
{
	struct settings settings;
	struct kport_spec *spec;
	struct kport_error *error;
	kport_status status;
	char *jail;
	int bad = 0;

	if (!settings_read(env, argv[2], &settings))
		return (enif_make_badarg(env));
	if ((jail = text(env, argv[0])) == NULL) {
		settings_free(&settings);
		return (enif_make_badarg(env));
	}
	status = parsed(env, argv[1], parse, &spec, &error, &bad);
	if (status == KPORT_OK)
		status = act(jail, spec, &settings.options, &error);
	kport_spec_free(spec);
	enif_free(jail);
	if (bad) {
		settings_free(&settings);
		return (enif_make_badarg(env));
	}
	return (done(env, &settings, status, error));
}

static ERL_NIF_TERM
publish(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	(void)argc;
	return (with_spec(env, argv, kport_parse, kport_publish));
}

static ERL_NIF_TERM
publish_kleene(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	(void)argc;
	return (with_spec(env, argv, kport_parse_kleene, kport_publish));
}

static ERL_NIF_TERM
unpublish_some(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	(void)argc;
	return (with_spec(env, argv, kport_parse, kport_unpublish_some));
}

/* unpublish(Jail, Options) */
static ERL_NIF_TERM
unpublish(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct settings settings;
	struct kport_error *error;
	kport_status status;
	char *jail;

	(void)argc;
	if (!settings_read(env, argv[1], &settings))
		return (enif_make_badarg(env));
	if ((jail = text(env, argv[0])) == NULL) {
		settings_free(&settings);
		return (enif_make_badarg(env));
	}
	status = kport_unpublish(jail, &settings.options, &error);
	enif_free(jail);
	return (done(env, &settings, status, error));
}

/* restore(Options), gc(Options) */
static ERL_NIF_TERM
for_all(ErlNifEnv *env, ERL_NIF_TERM map,
    kport_status (*act)(const struct kport_options *, struct kport_error **))
{
	struct settings settings;
	struct kport_error *error;
	kport_status status;

	if (!settings_read(env, map, &settings))
		return (enif_make_badarg(env));
	status = act(&settings.options, &error);
	return (done(env, &settings, status, error));
}

static ERL_NIF_TERM
restore(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	(void)argc;
	return (for_all(env, argv[0], kport_restore));
}

static ERL_NIF_TERM
gc(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	(void)argc;
	return (for_all(env, argv[0], kport_gc));
}

/* rules(Jail, Specs, Options) -> {ok, Text} | {error, {Status, Message}} */
static ERL_NIF_TERM
rules(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct settings settings;
	struct kport_spec *spec;
	struct kport_ruleset *ruleset = NULL;
	struct kport_error *error;
	kport_status status;
	ERL_NIF_TERM answer;
	char *jail;
	int bad = 0;

	(void)argc;
	if (!settings_read(env, argv[2], &settings))
		return (enif_make_badarg(env));
	if ((jail = text(env, argv[0])) == NULL) {
		settings_free(&settings);
		return (enif_make_badarg(env));
	}
	/* nothing is changed, so there is no outcome */
	settings.options.outcome = NULL;
	status = parsed(env, argv[1], kport_parse, &spec, &error, &bad);
	if (status == KPORT_OK)
		status = kport_rules(jail, spec, &settings.options, &ruleset,
		    &error);
	if (bad)
		answer = enif_make_badarg(env);
	else if (status != KPORT_OK)
		answer = failed(env, error);
	else
		answer = enif_make_tuple2(env, atom(env, "ok"),
		    binary(env, kport_ruleset_text(ruleset)));
	kport_ruleset_free(ruleset);
	kport_spec_free(spec);
	enif_free(jail);
	settings_free(&settings);
	return (answer);
}

/* list(Jail | nil, Options) -> {ok, [Map]} | {error, {Status, Message}} */
static ERL_NIF_TERM
list(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct settings settings;
	struct kport_listing *listing;
	struct kport_error *error;
	struct kport_entry entry;
	kport_status status;
	ERL_NIF_TERM rows;
	char *jail = NULL;
	size_t i;

	(void)argc;
	if (!settings_read(env, argv[1], &settings))
		return (enif_make_badarg(env));
	if (!enif_is_identical(argv[0], atom(env, "nil")) &&
	    (jail = text(env, argv[0])) == NULL) {
		settings_free(&settings);
		return (enif_make_badarg(env));
	}
	settings.options.outcome = NULL;
	settings.options.flags |= KPORT_COUNTERS;
	status = kport_list(jail, &settings.options, &listing, &error);
	enif_free(jail);
	settings_free(&settings);
	if (status != KPORT_OK)
		return (failed(env, error));
	rows = enif_make_list(env, 0);
	for (i = kport_listing_len(listing); i-- > 0;)
		if (kport_listing_get(listing, i, &entry, sizeof(entry)) ==
		    KPORT_OK)
			rows = enif_make_list_cell(env, port(env, &entry),
			    rows);
	kport_listing_free(listing);
	return (enif_make_tuple2(env, atom(env, "ok"), rows));
}

/* A watch. One call at a time may use it. */
struct watch {
	struct kport_watch *watch;
	ErlNifMutex *lock;
	ErlNifMonitor owner;
};

static ErlNifResourceType *watches;

/* The descriptor is not selected any more. */
static void
watch_stop(ErlNifEnv *env, void *object, ErlNifEvent event, int is_direct)
{
	struct watch *of = object;

	(void)env, (void)event, (void)is_direct;
	enif_mutex_lock(of->lock);
	kport_watch_free(of->watch);
	of->watch = NULL;
	enif_mutex_unlock(of->lock);
}

static void
watch_end(ErlNifEnv *env, struct watch *of)
{
	int descriptor;

	enif_mutex_lock(of->lock);
	descriptor = kport_watch_descriptor(of->watch);
	enif_mutex_unlock(of->lock);
	if (descriptor != -1)
		(void)enif_select(env, (ErlNifEvent)descriptor,
		    ERL_NIF_SELECT_STOP, of, NULL, atom(env, "undefined"));
}

/* The process that opened it has ended. */
static void
watch_down(ErlNifEnv *env, void *object, ErlNifPid *pid, ErlNifMonitor *monitor)
{
	(void)pid, (void)monitor;
	watch_end(env, object);
}

static void
watch_free(ErlNifEnv *env, void *object)
{
	struct watch *of = object;

	(void)env;
	kport_watch_free(of->watch);
	if (of->lock != NULL)
		enif_mutex_destroy(of->lock);
}

/* watch_open(Config | nil, Options) -> {ok, Watch} | {error, ...} */
static ERL_NIF_TERM
watch_open(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct settings settings;
	struct kport_watch *watch;
	struct kport_error *error;
	struct watch *of;
	kport_status status;
	ErlNifPid self;
	ERL_NIF_TERM answer;
	char *config = NULL;

	(void)argc;
	if (!settings_read(env, argv[1], &settings))
		return (enif_make_badarg(env));
	if (!enif_is_identical(argv[0], atom(env, "nil")) &&
	    (config = text(env, argv[0])) == NULL) {
		settings_free(&settings);
		return (enif_make_badarg(env));
	}
	settings.options.outcome = NULL;
	status = kport_watch_open(config, &settings.options, &watch, &error);
	enif_free(config);
	settings_free(&settings);
	if (status != KPORT_OK)
		return (failed(env, error));
	if ((of = enif_alloc_resource(watches, sizeof(*of))) == NULL) {
		kport_watch_free(watch);
		return (enif_make_badarg(env));
	}
	of->watch = watch;
	of->lock = enif_mutex_create((char *)"kport_watch");
	if (of->lock == NULL || enif_self(env, &self) == NULL ||
	    enif_monitor_process(env, of, &self, &of->owner) != 0) {
		enif_release_resource(of);
		return (enif_make_badarg(env));
	}
	answer = enif_make_tuple2(env, atom(env, "ok"),
	    enif_make_resource(env, of));
	enif_release_resource(of);
	return (answer);
}

/*
 * watch_next(Watch) -> {ok, Json | nil} | {error, ...}. After nil, the process
 * gets {select, Watch, undefined, ready_input} when there is more to do.
 */
static ERL_NIF_TERM
watch_next(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct kport_error *error;
	struct watch *of;
	const char *report;
	ERL_NIF_TERM answer;

	(void)argc;
	if (!enif_get_resource(env, argv[0], watches, (void **)&of))
		return (enif_make_badarg(env));
	enif_mutex_lock(of->lock);
	if (kport_watch_next(of->watch, &report, &error) != KPORT_OK)
		answer = failed(env, error);
	else {
		answer = enif_make_tuple2(env, atom(env, "ok"),
		    binary(env, report));
		if (report == NULL)
			(void)enif_select(env, (ErlNifEvent)
			    kport_watch_descriptor(of->watch),
			    ERL_NIF_SELECT_READ, of, NULL,
			    atom(env, "undefined"));
	}
	enif_mutex_unlock(of->lock);
	return (answer);
}

/* watch_reload(Watch) -> ok */
static ERL_NIF_TERM
watch_reload(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct watch *of;

	(void)argc;
	if (!enif_get_resource(env, argv[0], watches, (void **)&of))
		return (enif_make_badarg(env));
	enif_mutex_lock(of->lock);
	kport_watch_reload(of->watch);
	enif_mutex_unlock(of->lock);
	return (atom(env, "ok"));
}

/* watch_close(Watch) -> ok */
static ERL_NIF_TERM
watch_close(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct watch *of;

	(void)argc;
	if (!enif_get_resource(env, argv[0], watches, (void **)&of))
		return (enif_make_badarg(env));
	watch_end(env, of);
	return (atom(env, "ok"));
}

static int
load(ErlNifEnv *env, void **data, ERL_NIF_TERM info)
{
	static const ErlNifResourceTypeInit callbacks = { watch_free,
	    watch_stop, watch_down, 0, NULL };

	(void)data, (void)info;
	watches = enif_open_resource_type_x(env, "kport_watch", &callbacks,
	    ERL_NIF_RT_CREATE, NULL);
	return (watches == NULL);
}

static ErlNifFunc functions[] = {
	{ "check", 1, check, 0 },
	{ "check_kleene", 1, check_kleene, 0 },
	{ "publish", 3, publish, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "publish_kleene", 3, publish_kleene, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "unpublish", 2, unpublish, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "unpublish_some", 3, unpublish_some, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "restore", 1, restore, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "gc", 1, gc, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "rules", 3, rules, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "list", 2, list, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "watch_open", 2, watch_open, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "watch_next", 1, watch_next, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "watch_reload", 1, watch_reload, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "watch_close", 1, watch_close, ERL_NIF_DIRTY_JOB_IO_BOUND },
};

ERL_NIF_INIT(Elixir.Kport, functions, load, NULL, NULL, NULL)
