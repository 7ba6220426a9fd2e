/*
 * What a confused or malicious caller can pass: texts that are long, empty,
 * not UTF-8, or made to break out of a rule; sizes and numbers that are
 * absurd; and structs of older and newer versions.
 */
#include <limits.h>
#include <stdlib.h>

#include "check.h"

static const char *const rude[] = {
	"", " ", "\n", "web\n", "\nweb", "web\" to any # \"", "web'; reboot",
	"../../etc", "web/../..", "a/b", "\xff", "\xc3\x28", "we\xed\xa0\x80",
	"\x1b[31m", "%s%n", "{ em0 em1 }", "any", "<t>", "!em0", "($x)", "-1",
	"0x50", "99999999999999999999", "\xe2\x80\xae", "em0 em1:",
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* A text of n times c. */
static char *
times(size_t n, int c)
{
	char *text;

	if ((text = malloc(n + 1)) == NULL)
		abort();
	memset(text, c, n);
	text[n] = '\0';
	return (text);
}

/* Whatever the call answers, error and message are sound. */
static void
sound(kport_status status, struct kport_error *error)
{
	CHECK((status == KPORT_OK) == (error == NULL));
	CHECK(status != KPORT_ERR_INTERNAL);
	CHECK(kport_error_status(error) == status);
	CHECK(strlen(kport_error_message(error)) < 2048);
	CHECK(strpbrk(kport_error_message(error), "\n\033\377") == NULL);
	kport_error_free(error);
}

/* One text in each place that takes one. */
static void
everywhere(const char *text, const struct kport_spec *good,
    const struct kport_options *usual)
{
	struct kport_options options;
	const char **fields[6];
	struct kport_spec *spec;
	struct kport_listing *listing;
	struct kport_error *error;
	kport_status status;
	size_t i;

	status = kport_parse(text, &spec, &error);
	CHECK((status == KPORT_OK) == (spec != NULL));
	CHECK(error == NULL || kport_error_offset(error) == SIZE_MAX ||
	    kport_error_offset(error) <= strlen(text));
	sound(status, error);
	kport_spec_free(spec);

	status = kport_publish(text, good, usual, &error);
	sound(status, error);
	status = kport_list(text, usual, &listing, &error);
	CHECK((status == KPORT_OK) == (listing != NULL));
	sound(status, error);
	kport_listing_free(listing);
	status = kport_unpublish(text, usual, &error);
	sound(status, error);
	status = kport_unpublish_some(text, good, usual, &error);
	sound(status, error);

	for (i = 0; i < COUNT(fields); i++) {
		options = *usual;
		fields[0] = &options.backend;
		fields[1] = &options.state_dir;
		fields[2] = &options.addresses;
		fields[3] = &options.gateway;
		fields[4] = &options.reach;
		fields[5] = &options.sources;
		*fields[i] = text;
		status = kport_publish("web", good, &options, &error);
		sound(status, error);
	}
}

/* A list that came out empty must not let everybody in. */
static void
no_sources(const struct kport_spec *spec, const struct kport_options *usual)
{
	struct kport_options options = *usual;

	options.sources = "";
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "leave it NULL for everybody");
	options.sources = " \t";
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "leave it NULL for everybody");
}

static void
growth(const struct kport_spec *spec, const struct kport_options *usual)
{
	union {
		struct kport_options options;
		unsigned char bytes[4097];
	} newer;
	struct kport_options options;
	struct kport_mapping mapping;
	unsigned char bytes[sizeof(mapping) + 8];
	size_t i;
	static const size_t sizes[] = { 0, 1, 7, 8, sizeof(options) - 1, 4097,
	    SIZE_MAX / 2, SIZE_MAX };

	for (i = 0; i < COUNT(sizes); i++) {
		options = *usual;
		options.size = sizes[i];
		CHECK_FAILED(kport_publish("web", spec, &options, err_),
		    KPORT_ERR_ARGUMENT, "KPORT_OPTIONS_INIT");
	}

	memset(&newer, 0, sizeof(newer));
	newer.options = *usual;
	for (i = sizeof(options); i <= 4096; i = i < 128 ? i + 8 : 2 * i) {
		newer.options.size = i;
		CHECK(kport_publish("web", spec, &newer.options, NULL) ==
		    KPORT_OK);
		newer.bytes[i] = 1;	/* not a part of it */
		CHECK(kport_unpublish("web", &newer.options, NULL) ==
		    KPORT_OK);
		newer.bytes[i] = 0;
		if (i == sizeof(options))
			continue;
		newer.bytes[i - 1] = 1;
		CHECK_FAILED(kport_publish("web", spec, &newer.options, err_),
		    KPORT_ERR_UNSUPPORTED, kport_version());
		newer.bytes[i - 1] = 0;
	}

	options = *usual;
	options.flags = 1u << 31;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_UNSUPPORTED, "0x80000000");

	/* a program that knows only the first fields gets no more */
	memset(bytes, 0xaa, sizeof(bytes));
	CHECK(kport_spec_get(spec, 0, (struct kport_mapping *)(void *)bytes,
	    10) == KPORT_OK);
	memcpy(&mapping, bytes, 10);
	CHECK(mapping.host_port == 8080 && bytes[10] == 0xaa);
	/* one that knows more gets zeros */
	CHECK(kport_spec_get(spec, 0, (struct kport_mapping *)(void *)bytes,
	    sizeof(bytes)) == KPORT_OK);
	memcpy(&mapping, bytes, sizeof(mapping));
	CHECK(mapping.jail_port == 80 && mapping.count == 1);
	for (i = sizeof(mapping); i < sizeof(bytes); i++)
		CHECK(bytes[i] == 0);
	memset(bytes, 0xaa, sizeof(bytes));
	CHECK(kport_spec_get(spec, 0, (struct kport_mapping *)(void *)bytes,
	    0) == KPORT_ERR_ARGUMENT);
	CHECK(kport_spec_get(spec, 0, (struct kport_mapping *)(void *)bytes,
	    SIZE_MAX) == KPORT_ERR_ARGUMENT);
	CHECK(bytes[0] == 0xaa);
}

static void
numbers(const struct kport_spec *spec, const struct kport_options *usual)
{
	struct kport_options options;
	int32_t status;

	options = *usual;
	options.jid = -1;
	CHECK_FAILED(kport_unpublish("web", &options, err_),
	    KPORT_ERR_ARGUMENT, "jid");
	options.jid = INT32_MIN;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "jid");

	options = *usual;
	options.auto_first = 5000;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "auto_first");
	options.auto_last = 4999;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "4999");

	options = *usual;
	options.rate_connections = 5;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "5/0");
	options.rate_connections = UINT32_MAX;
	options.rate_seconds = UINT32_MAX;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "rate");

	options = *usual;
	options.timeout_ms = UINT32_MAX;
	options.max_connections = UINT32_MAX;
	options.max_connections_per_source = UINT32_MAX;
	options.jid = INT32_MAX;
	CHECK(kport_publish("web", spec, &options, NULL) == KPORT_OK);
	options.timeout_ms = 1;
	CHECK(kport_unpublish("web", &options, NULL) == KPORT_OK);

	for (status = -10; status <= 100; status++)
		CHECK(kport_status_text(status)[0] != '\0');
	CHECK(strcmp(kport_status_text(INT32_MIN),
	    kport_status_text(INT32_MAX)) == 0);
}

int
main(void)
{
	struct kport_options options = KPORT_OPTIONS_INIT;
	struct kport_spec *spec;
	static const size_t lengths[] = { 63, 64, 255, 256, 65536, 65537,
	    1048577 };
	static const int characters[] = { 'a', '1', '/', 0xff };
	size_t i, j;
	char *text;

	options.backend = "sim";
	options.state_dir = getenv("KPORT_STATE_DIR");
	options.addresses = "10.0.0.2";
	CHECK(kport_parse("em0:8080:80", &spec, NULL) == KPORT_OK);

	for (i = 0; i < COUNT(rude); i++)
		everywhere(rude[i], spec, &options);
	for (i = 0; i < COUNT(lengths); i++)
		for (j = 0; j < COUNT(characters); j++) {
			text = times(lengths[i], characters[j]);
			everywhere(text, spec, &options);
			free(text);
		}
	CHECK_FAILED(kport_unpublish("\xff", &options, err_),
	    KPORT_ERR_ARGUMENT, "UTF-8");
	no_sources(spec, &options);
	growth(spec, &options);
	numbers(spec, &options);
	kport_spec_free(spec);
	return (check_failed);
}
