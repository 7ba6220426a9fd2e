/*
 * kport for Erlang and Elixir, a NIF; kport.ex is its module. Calls wait for
 * locks and for pf, so they run on dirty I/O schedulers.
 *
 *	cc -shared -fPIC kport_nif.c -I "$ERL_ROOT/usr/include" \
 *	    $(pkg-config --cflags --libs kport) -o kport_nif.so
 *
 * Texts are binaries in both directions. A failure is
 * {error, {Status, Message}}, Status being the name of a KPORT_ERR_ constant.
 */
#include <erl_nif.h>
#include <kport.h>
#include <string.h>

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

/* A binary as a text, to be freed with enif_free(); NULL if it is none. */
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

/* Takes the error. */
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

/* The texts of a map #{backend, state_dir, addresses, gateway, reach}. */
struct settings {
	struct kport_options options;
	char *texts[5];
};

static void
settings_free(struct settings *settings)
{
	size_t i;

	for (i = 0; i < 5; i++)
		enif_free(settings->texts[i]);
}

static int
settings_read(ErlNifEnv *env, ERL_NIF_TERM map, struct settings *settings)
{
	static const struct kport_options init = KPORT_OPTIONS_INIT;
	static const char *const keys[] = { "backend", "state_dir",
	    "addresses", "gateway", "reach" };
	ERL_NIF_TERM value;
	size_t i;

	memset(settings, 0, sizeof(*settings));
	settings->options = init;
	if (!enif_is_map(env, map))
		return (0);
	for (i = 0; i < 5; i++)
		if (enif_get_map_value(env, map, atom(env, keys[i]), &value) &&
		    (settings->texts[i] = text(env, value)) == NULL) {
			settings_free(settings);
			return (0);
		}
	if (enif_get_map_value(env, map, atom(env, "jid"), &value) &&
	    !enif_get_int(env, value, &settings->options.jid)) {
		settings_free(settings);
		return (0);
	}
	settings->options.backend = settings->texts[0];
	settings->options.state_dir = settings->texts[1];
	settings->options.addresses = settings->texts[2];
	settings->options.gateway = settings->texts[3];
	settings->options.reach = settings->texts[4];
	return (1);
}

/* publish(Jail, Specs, Options) -> ok | {error, {Status, Message}} */
static ERL_NIF_TERM
publish(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct settings settings;
	struct kport_spec *spec;
	struct kport_error *error;
	char *jail, *specs;
	ERL_NIF_TERM term;

	(void)argc;
	if (!settings_read(env, argv[2], &settings))
		return (enif_make_badarg(env));
	jail = text(env, argv[0]);
	specs = text(env, argv[1]);
	if (jail == NULL || specs == NULL)
		term = enif_make_badarg(env);
	else if (kport_parse(specs, &spec, &error) != KPORT_OK)
		term = failed(env, error);
	else {
		if (kport_publish(jail, spec, &settings.options, &error) !=
		    KPORT_OK)
			term = failed(env, error);
		else
			term = atom(env, "ok");
		kport_spec_free(spec);
	}
	enif_free(jail);
	enif_free(specs);
	settings_free(&settings);
	return (term);
}

/* unpublish(Jail, Options) -> ok | {error, {Status, Message}} */
static ERL_NIF_TERM
unpublish(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct settings settings;
	struct kport_error *error;
	char *jail;
	ERL_NIF_TERM term;

	(void)argc;
	if (!settings_read(env, argv[1], &settings))
		return (enif_make_badarg(env));
	if ((jail = text(env, argv[0])) == NULL)
		term = enif_make_badarg(env);
	else if (kport_unpublish(jail, &settings.options, &error) != KPORT_OK)
		term = failed(env, error);
	else
		term = atom(env, "ok");
	enif_free(jail);
	settings_free(&settings);
	return (term);
}

/*
 * list(Options) -> {ok, [{Jail, Place, HostPort, Address, JailPort, Count}]}
 *     | {error, {Status, Message}}
 */
static ERL_NIF_TERM
list(ErlNifEnv *env, int argc, const ERL_NIF_TERM argv[])
{
	struct settings settings;
	struct kport_listing *listing;
	struct kport_error *error;
	struct kport_entry entry;
	ERL_NIF_TERM rows;
	size_t i;

	(void)argc;
	if (!settings_read(env, argv[0], &settings))
		return (enif_make_badarg(env));
	if (kport_list(NULL, &settings.options, &listing, &error) !=
	    KPORT_OK) {
		settings_free(&settings);
		return (failed(env, error));
	}
	rows = enif_make_list(env, 0);
	for (i = kport_listing_len(listing); i-- > 0;)
		if (kport_listing_get(listing, i, &entry, sizeof(entry)) ==
		    KPORT_OK)
			rows = enif_make_list_cell(env, enif_make_tuple6(env,
			    binary(env, entry.jail), binary(env, entry.place),
			    enif_make_uint(env, entry.host_port),
			    binary(env, entry.address),
			    enif_make_uint(env, entry.jail_port),
			    enif_make_uint(env, entry.count)), rows);
	kport_listing_free(listing);
	settings_free(&settings);
	return (enif_make_tuple2(env, atom(env, "ok"), rows));
}

static ErlNifFunc functions[] = {
	{ "publish", 3, publish, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "unpublish", 2, unpublish, ERL_NIF_DIRTY_JOB_IO_BOUND },
	{ "list", 1, list, ERL_NIF_DIRTY_JOB_IO_BOUND },
};

ERL_NIF_INIT(Elixir.Kport, functions, NULL, NULL, NULL, NULL)
