/*
 * redact_test.c: shapes of secrets, of which nothing is left; messages of
 * everyday, which stay as they are; random and hostile texts. Prints TAP. Knows
 * the scanner only through its header.
 * Sources: redact*.c
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "security/redact.h"

static int	tests;
static int	failures;
static JobqRedactPatterns patterns;

static void
ok(bool passed, const char *name)
{
	tests++;
	if (!passed)
		failures++;
	printf("%sok %d - %.200s\n", passed ? "" : "not ", tests, name);
}

static size_t
scan(const char *text, size_t length, char **out)
{
	size_t		used;

	/* exactly as much as it says, so that one byte more is noticed */
	*out = malloc(jobq_redact_room(length));
	if (*out == NULL)
		abort();
	used = jobq_redact_scan(text, length, &patterns, *out);
	if (used > jobq_redact_room(length))
		abort();
	return used;
}

/* A copy that ends where the text ends, so that reading on is noticed. */
static char *
redact(const char *text)
{
	size_t		length = strlen(text);
	char	   *exact = malloc(length > 0 ? length : 1);
	char	   *out;
	char	   *result;
	size_t		used;

	if (exact == NULL)
		abort();
	memcpy(exact, text, length);
	used = scan(exact, length, &out);
	result = malloc(used + 1);
	if (result == NULL)
		abort();
	memcpy(result, out, used);
	result[used] = '\0';
	free(out);
	free(exact);
	return result;
}

/* On one line, for TAP. */
static void
report(bool passed, const char *what, const char *text, const char *got)
{
	char		name[1000];

	snprintf(name, sizeof(name), "%s: %s", what, text);
	for (char *c = name; *c != '\0'; c++)
	{
		if ((unsigned char) *c < ' ' || *c == '#')
			*c = ' ';
	}
	ok(passed, name);
	if (!passed)
		printf("# got: %s\n", got);
}

/* ---- secrets ---- */

typedef struct Shape
{
	const char *text;
	const char *secret;
	const char *other;			/* another part of it, or NULL */
} Shape;

typedef struct Change
{
	const char *text;
	const char *expected;
} Change;

#include "redact_shapes.h"

static void
try_shape(const Shape *shape)
{
	char	   *got = redact(shape->text);
	char	   *again = redact(got);
	bool		passed = strstr(got, shape->secret) == NULL &&
		(shape->other == NULL || strstr(got, shape->other) == NULL) &&
		strstr(got, "***") != NULL && strcmp(got, again) == 0;

	report(passed, "hidden", shape->text, got);
	free(got);
	free(again);
}

/* In the middle of other text, and cut off after each byte of the secret. */
static void
try_surrounded(void)
{
	char		text[4000];
	char		name[1200];
	int			before = failures;

	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
	{
		char	   *got;

		snprintf(text, sizeof(text), "job 17 failed (see below)\n%s\n  at run (app.js:10:5)\nwith code 3",
				 shapes[i].text);
		got = redact(text);
		if (strstr(got, shapes[i].secret) != NULL ||
			(shapes[i].other != NULL && strstr(got, shapes[i].other) != NULL) ||
			strstr(got, "job 17 failed (see below)\n") != got)
		{
			snprintf(name, sizeof(name), "hidden among other lines: %.500s",
					 got);
			report(false, name, shapes[i].text, got);
		}
		free(got);
	}
	ok(failures == before, "all of them among other lines");
}

/* ---- what stays ---- */

static void
try_ordinary(const char *text)
{
	char	   *got = redact(text);

	report(strcmp(got, text) == 0, "as it is", text, got);
	free(got);
}

static void
try_change(const Change *change)
{
	char	   *got = redact(change->text);

	report(strcmp(got, change->expected) == 0, "only the secret goes",
		   change->text, got);
	free(got);
}

/* ---- patterns ---- */

static void
try_patterns(void)
{
	static const char *const wrong[] = {
		"ab", "-abc", "*", "ab*", "a*bcd", "pass word=x y=", "=", "=abc", "a b",
		"x=", "p in=", "k*=",
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
		"a01,a02,a03,a04,a05,a06,a07,a08,a09,a10,a11,a12,a13,a14,a15,a16,a17,"
		"a18,a19,a20,a21,a22,a23,a24,a25,a26,a27,a28,a29,a30,a31,a32,a33"
	};
	static const Shape own[] = {
		{"customer CUST-123456 is blocked", "CUST-123456", NULL},
		{"key acme_live_x9/y+z==, then more", "acme_live", "x9/y"},
		{"Kundennummer=4711 fehlt", "4711", NULL},
		{"{\"acmePin\": \"00-11\"}", "00-11", NULL},
		{"ACME_PIN: 77x", "77x", NULL},
		{"acme-pin: blue", "blue", NULL},
		{"id X7-Q", "X7-Q", NULL},
	};
	static const char *const not_own[] = {
		"CUST-1234567 has a digit too many", "CUST-12345 has too few",
		"XCUST-123456 begins otherwise", "acme_live_ has no rest",
		"a spinning top=1", "id XX-Q", "cust-123456 is written otherwise"
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		report(jobq_redact_parse(wrong[i], &patterns) != NULL,
			   "no pattern", wrong[i], "");
	ok(jobq_redact_parse("", &patterns) == NULL && patterns.n == 0,
	   "no patterns at all");
	ok(jobq_redact_parse(" CUST-######, acme_live_*,kundennummer= acme_pin=\n?#-?",
						 &patterns) == NULL && patterns.n == 5,
	   "five patterns");
	for (size_t i = 0; i < sizeof(own) / sizeof(own[0]); i++)
		try_shape(&own[i]);
	for (size_t i = 0; i < sizeof(not_own) / sizeof(not_own[0]); i++)
		try_ordinary(not_own[i]);
	memset(&patterns, 0, sizeof(patterns));
	try_ordinary("customer CUST-123456 is blocked");
}

/* ---- random texts ---- */

static uint64_t random_state = UINT64_C(88172645463325252);

static uint32_t
random_below(uint32_t limit)
{
	random_state ^= random_state >> 12;
	random_state ^= random_state << 25;
	random_state ^= random_state >> 27;
	return (uint32_t) ((random_state * UINT64_C(2685821657736338717)) >> 33) %
		limit;
}

static const char *const pieces[] = {
	"password", "token", "secret", "api_key", "Authorization", "Bearer",
	"Basic", "pass", "auth", "sig", "cookie", "identified by", "PWD", "private key",
	"=", ":", ": ", " = ", "=>", "==", "%3D", ">", "<", "\"", "'", "`",
	"\\\"", "\\", "&", ",", ";", "[", "]", "{", "}", "(", ")", "?", "$1", "${X}",
	"%s", "*", "***", "xxx", " ", "  ", "\n", "\t", "://", "@", "@tcp(",
	"jdbc:oracle:thin:", "https", "postgres://u:p@h/", "-----BEGIN KEY-----",
	"-----END KEY-----", "-----", "AKIA0123456789ABCDEF", "ghp_0123456789abcdefghij",
	"eyJhbGciOi.eyJzdWIi.abc", "4111 1111 1111 1111", "4111", "1111", "-", "_", ".",
	"550e8400-e29b-41d4-a716-446655440000", "dXNlcjpwYXNz", "hunter2", "abc", "the",
	"is", "unexpected", "null", "value", "name", "MIIEvQIBADANBgkqhkiG9w0BAQ",
	"\xc3\xa9", "\xe6\xbc\xa2", "\xff", "--", "0", "sk_live_12345678", "$2b$10$",
	"CUST-123456", "acme_pin"
};

static size_t
random_text(char *text, size_t room)
{
	size_t		length = 0;
	uint32_t	n = 1 + random_below(24);

	for (uint32_t i = 0; i < n; i++)
	{
		const char *piece = pieces[random_below(sizeof(pieces) / sizeof(pieces[0]))];
		size_t		l = strlen(piece);

		if (length + l + 1 >= room)
			break;
		if (random_below(8) == 0)
			text[length++] = (char) (1 + random_below(255));
		memcpy(text + length, piece, l);
		length += l;
	}
	text[length] = '\0';
	return length;
}

/* Bytes of other characters are hidden whole, or stay whole. */
static bool
is_utf8(const char *text)
{
	for (const unsigned char *c = (const unsigned char *) text; *c != '\0';)
	{
		int			more = *c < 0x80 ? 0 : *c == 0xc3 ? 1 : *c == 0xe6 ? 2 : -1;

		if (more < 0)
			return false;
		for (c++; more > 0; more--, c++)
		{
			if ((*c & 0xc0) != 0x80)
				return false;
		}
	}
	return true;
}

static void
try_random(int n)
{
	char		text[2000];
	char		once_bad[2000] = "";
	char		broken[2000] = "";

	(void) jobq_redact_parse("CUST-###### acme_pin=", &patterns);
	for (int i = 0; i < n; i++)
	{
		char	   *got;
		char	   *again;

		(void) random_text(text, sizeof(text));
		got = redact(text);
		again = redact(got);
		if (strcmp(got, again) != 0 && once_bad[0] == '\0')
		{
			snprintf(once_bad, sizeof(once_bad), "%s", text);
			printf("# text:  %s\n# once:  %s\n# twice: %s\n", text, got, again);
		}
		if (is_utf8(text) && !is_utf8(got))
			snprintf(broken, sizeof(broken), "%s", text);
		free(got);
		free(again);
	}
	memset(&patterns, 0, sizeof(patterns));
	report(once_bad[0] == '\0', "a second time nothing changes", once_bad, "");
	report(broken[0] == '\0', "no character is cut", broken, "");
}

/* ---- time ---- */

#define LARGE	(128 * 1024)

static const char *const hostile[] = {
	"a", "4", "4111 ", "4111-1111-1111-111", "password=", "password: ",
	"password=\"", "\"password\":\"", "password='\\", "\\\"password\\\":\\\"",
	"password", "token ", "token: ", "unexpected token: '", "://", "://a:b",
	"://a:b/", "a@tcp(", "a:@tcp(", "@", ":", "-", "-----BEGIN ", "-----BEGIN A-----",
	"-----BEGIN A-----\n", "-----END A-----", "\n-----END A-----", "abcdEFGH1234\n",
	"abcdEFGH1234\n-----END A-----", "eyJ", "eyJaaaaaaaa.", "AKIA", "ghp_", "Basic ",
	"Basic YWJj", "Bearer ", "bearer a", "cookie: a", "authorization: a, b=c ",
	"\"password\":[\"this \",", "password:[\"", "'", "\"", "\\", " ", "\n", ",", "a,",
	"password=a,a", "password=,", ";password=", "password=*", "password=x",
	"password: $1", "password=${", "a.b.c.", "t.token=", "api key ", "api_key_",
	"550e8400-", "550e8400-e29b-41d4-a716-44665544000", "jdbc:oracle:thin:@",
	"<password>", "<a>", "%3D", "password%3d", "password\t=\t", "--password ",
	"1/", "\xc3\xa9", "hooks.slack.com/", "$2a$", "name\":\"password\",\"value\":",
	"pass:", "sig:", "auth:", "pass:*", "pass:.", "pass:x,", "bearer%20a=\"",
	"Bearer%20a='", "pass:\\'' ", "sig: \\'','passwordbasic `=[\"[", "pass:\\\"",
	"pass:[\"", "pass:[\"a\",", "abcdEFGH1234-----END A-----", "aB1c-----END -----"
};

/* Of as many tries as it is told the fastest. */
static double
seconds_for(const char *piece, size_t size, int tries)
{
	char	   *text = malloc(size);
	size_t		l = strlen(piece);
	double		best = 1e9;
	char	   *out;

	if (text == NULL)
		abort();
	for (size_t i = 0; i < size; i++)
		text[i] = piece[i % l];
	for (int i = 0; i < tries; i++)
	{
		clock_t		start = clock();
		double		took;

		(void) scan(text, size, &out);
		free(out);
		took = (double) (clock() - start) / CLOCKS_PER_SEC;
		best = took < best ? took : best;
	}
	free(text);
	return best;
}

/*
 * Sixteen times the text may take no more than fifty times as long: what is not
 * linear takes 256 times. What is too fast to be measured is fast enough.
 */
static bool
is_linear(const char *piece, int tries, double *large)
{
	double		small = seconds_for(piece, LARGE / 16, tries + 1);

	*large = seconds_for(piece, LARGE, tries);
	return *large <= 50 * (small > 0.0005 ? small : 0.0005);
}

static void
try_time(void)
{
	double		slowest = 0;
	const char *of = "";
	int			before = failures;

	for (size_t i = 0; i < sizeof(hostile) / sizeof(hostile[0]); i++)
	{
		double		seconds;

		if (!is_linear(hostile[i], 1, &seconds) &&
			!is_linear(hostile[i], 5, &seconds))
		{
			report(false, "linear", hostile[i], "");
			break;				/* the next ones may take even longer */
		}
		if (seconds > slowest)
		{
			slowest = seconds;
			of = hostile[i];
		}
	}
	printf("# slowest: %.1f ms for 128 kB of \"%s\"\n", slowest * 1000, of);
	ok(failures == before, "time in proportion to the length");
}

int
main(int argc, char **argv)
{
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
		try_shape(&shapes[i]);
	try_surrounded();
	for (size_t i = 0; i < sizeof(ordinary) / sizeof(ordinary[0]); i++)
		try_ordinary(ordinary[i]);
	for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++)
		try_change(&changes[i]);
	try_patterns();
	try_random(argc > 1 ? atoi(argv[1]) : 20000);
	try_time();
	printf("1..%d\n", tests);
	return failures > 0;
}
