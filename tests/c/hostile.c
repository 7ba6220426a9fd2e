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

/* What a call did is sound, whatever it was called with. */
static void
heard(struct kport_outcome *outcome)
{
	struct kport_entry entry;
	size_t i;

	for (i = 0; i < kport_outcome_notes(outcome); i++)
		CHECK(strpbrk(kport_outcome_note(outcome, i),
		    "\n\033\377") == NULL);
	for (i = 0; i < kport_outcome_len(outcome); i++) {
		CHECK(kport_outcome_get(outcome, i, &entry, sizeof(entry)) ==
		    KPORT_OK);
		CHECK(strcmp(entry.jail, "web") == 0);
	}
	kport_outcome_free(outcome);
}

/* One text in each place that takes one. */
static void
everywhere(const char *text, const struct kport_spec *good,
    const struct kport_options *defaults)
{
	struct kport_options options;
	struct kport_outcome *outcome;
	const char **fields[6];
	struct kport_spec *spec;
	struct kport_listing *listing;
	struct kport_ruleset *ruleset;
	struct kport_error *error;
	kport_status status;
	size_t i;

	status = kport_parse(text, &spec, &error);
	CHECK((status == KPORT_OK) == (spec != NULL));
	CHECK(error == NULL || kport_error_offset(error) == SIZE_MAX ||
	    kport_error_offset(error) <= strlen(text));
	sound(status, error);
	kport_spec_free(spec);

	status = kport_publish(text, good, defaults, &error);
	sound(status, error);
	status = kport_list(text, defaults, &listing, &error);
	CHECK((status == KPORT_OK) == (listing != NULL));
	sound(status, error);
	kport_listing_free(listing);
	status = kport_unpublish(text, defaults, &error);
	sound(status, error);
	status = kport_unpublish_some(text, good, defaults, &error);
	sound(status, error);

	status = kport_rules(text, good, defaults, &ruleset, &error);
	CHECK((status == KPORT_OK) == (ruleset != NULL));
	CHECK((status == KPORT_OK) == (kport_ruleset_text(ruleset) != NULL));
	sound(status, error);
	kport_ruleset_free(ruleset);

	for (i = 0; i < COUNT(fields); i++) {
		options = *defaults;
		fields[0] = &options.backend;
		fields[1] = &options.state_dir;
		fields[2] = &options.addresses;
		fields[3] = &options.gateway;
		fields[4] = &options.reach;
		fields[5] = &options.sources;
		*fields[i] = text;
		options.outcome = &outcome;
		outcome = (struct kport_outcome *)&options;
		status = kport_publish("web", good, &options, &error);
		CHECK((status == KPORT_OK) == (outcome != NULL));
		heard(outcome);
		sound(status, error);
		status = kport_rules("web", good, &options, &ruleset, &error);
		CHECK((status == KPORT_OK) == (ruleset != NULL));
		kport_ruleset_free(ruleset);
		sound(status, error);
	}
}

/* The variable for the outcome is written in any case, and never read. */
static void
outcomes(const struct kport_spec *spec, const struct kport_options *defaults)
{
	union {
		struct kport_options options;
		unsigned char bytes[sizeof(struct kport_options) + 8];
	} newer;
	struct kport_options options = *defaults;
	struct kport_outcome *const junk = (struct kport_outcome *)&options;
	struct kport_outcome *outcome;
	struct kport_listing *listing;
	struct kport_entry entry;
	size_t i;

	options.outcome = &outcome;
#define FAILS(status, call) do {					\
	outcome = junk;							\
	CHECK((call) == (status));					\
	CHECK(outcome == NULL);						\
} while (0)
	FAILS(KPORT_ERR_ARGUMENT, kport_publish(NULL, spec, &options, NULL));
	FAILS(KPORT_ERR_ARGUMENT, kport_publish("web", NULL, &options, NULL));
	FAILS(KPORT_ERR_ARGUMENT, kport_unpublish(NULL, &options, NULL));
	FAILS(KPORT_ERR_ARGUMENT, kport_unpublish_some("web", NULL, &options,
	    NULL));
	options.flags = 1u << 31;
	FAILS(KPORT_ERR_UNSUPPORTED, kport_publish("web", spec, &options,
	    NULL));
	FAILS(KPORT_ERR_UNSUPPORTED, kport_restore(&options, NULL));
	FAILS(KPORT_ERR_UNSUPPORTED, kport_gc(&options, NULL));
	options.flags = 0;
	options.reserved = 1;
	FAILS(KPORT_ERR_UNSUPPORTED, kport_unpublish("web", &options, NULL));
	options.reserved = 0;
	options.addresses = "inherit";
	FAILS(KPORT_ERR_UNSUPPORTED, kport_publish("web", spec, &options,
	    NULL));
	options.addresses = defaults->addresses;
	memset(&newer, 0, sizeof(newer));
	newer.options = options;
	newer.options.size = sizeof(newer);
	newer.bytes[sizeof(options)] = 1;
	FAILS(KPORT_ERR_UNSUPPORTED, kport_publish("web", spec,
	    &newer.options, NULL));
#undef FAILS

	/* without a size, nobody knows where the field is */
	outcome = junk;
	options.size = 0;
	CHECK(kport_publish("web", spec, &options, NULL) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(outcome == junk);
	options.size = sizeof(options);

	/* what changes nothing has none */
	CHECK(kport_list(NULL, &options, &listing, NULL) == KPORT_OK);
	kport_listing_free(listing);
	CHECK(outcome == junk);

	CHECK(kport_publish("web", spec, &options, NULL) == KPORT_OK);
	CHECK(kport_outcome_changed(outcome) == 1);
	CHECK(kport_outcome_len(outcome) == 1);
	CHECK(kport_outcome_get(outcome, 0, &entry, sizeof(entry)) ==
	    KPORT_OK);
	CHECK(strcmp(entry.anchor, "kport/web") == 0 && entry.count == 1);
	CHECK(kport_outcome_get(outcome, 1, &entry, sizeof(entry)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_outcome_get(outcome, 0, NULL, sizeof(entry)) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_outcome_get(outcome, 0, &entry, SIZE_MAX) ==
	    KPORT_ERR_ARGUMENT);
	CHECK(kport_outcome_notes(outcome) == 1);
	CHECK(strstr(kport_outcome_note(outcome, 0), "simulator") != NULL);
	for (i = 1; i <= SIZE_MAX / 128; i *= 128)
		CHECK(kport_outcome_note(outcome, i) == NULL);
	kport_outcome_free(outcome);
	CHECK(kport_unpublish("web", &options, NULL) == KPORT_OK);
	CHECK(kport_outcome_len(outcome) == 0);
	kport_outcome_free(outcome);
}

/* A list that came out empty must not let everybody in. */
static void
no_sources(const struct kport_spec *spec, const struct kport_options *defaults)
{
	struct kport_options options = *defaults;

	options.sources = "";
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "omit it to admit everybody");
	options.sources = " \t";
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "omit it to admit everybody");
}

static void
growth(const struct kport_spec *spec, const struct kport_options *defaults)
{
	union {
		struct kport_options options;
		unsigned char bytes[4097];
	} newer;
	struct kport_options options;
	struct kport_mapping mapping;
	unsigned char bytes[sizeof(mapping) + 8];
	size_t i;
	static const size_t sizes[] = { 0, 1, 7, 8,
	    offsetof(struct kport_options, reply_to) - 1, 4097, SIZE_MAX / 2,
	    SIZE_MAX };

	for (i = 0; i < COUNT(sizes); i++) {
		options = *defaults;
		options.size = sizes[i];
		CHECK_FAILED(kport_publish("web", spec, &options, err_),
		    KPORT_ERR_ARGUMENT, "KPORT_OPTIONS_INIT");
	}

	memset(&newer, 0, sizeof(newer));
	newer.options = *defaults;
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

	options = *defaults;
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
numbers(const struct kport_spec *spec, const struct kport_options *defaults)
{
	struct kport_options options;
	int32_t status;

	options = *defaults;
	options.jid = -1;
	CHECK_FAILED(kport_unpublish("web", &options, err_),
	    KPORT_ERR_ARGUMENT, "jid");
	options.jid = INT32_MIN;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "jid");

	options = *defaults;
	options.auto_first = 5000;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "auto_first");
	options.auto_last = 4999;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "4999");

	options = *defaults;
	options.rate_connections = 5;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "5/0");
	options.rate_connections = UINT32_MAX;
	options.rate_seconds = UINT32_MAX;
	CHECK_FAILED(kport_publish("web", spec, &options, err_),
	    KPORT_ERR_ARGUMENT, "rate");

	options = *defaults;
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
	outcomes(spec, &options);
	growth(spec, &options);
	numbers(spec, &options);
	kport_spec_free(spec);
	return (check_failed);
}
