/*
 * redactword.c: what is a value, and what is a word of a message: where it
 * ends, whether it is a placeholder, or stands for nothing secret. Plain C.
 */
#include "security/redactscan.h"

/* ---- words that are no secrets ---- */

/* Words that follow a name and a colon, or a scheme, in messages. */
static const char *const common_words[] = {
	"a", "an", "and", "any", "argument", "as", "at", "auth",
	"authentication", "authorization", "bad", "be", "been", "blank", "but",
	"by", "can", "can't", "cannot", "contain", "contains",
	"could", "couldn't", "credential", "credentials", "denied", "did",
	"didn't", "disabled", "do", "does", "doesn't", "don't", "empty",
	"enabled", "enter", "error", "exceeds", "expected", "expecting",
	"expired", "failed", "failure", "field", "for", "forbidden", "format",
	"found", "from", "given", "got", "had", "has", "have", "header",
	"headers", "i/o", "if", "in", "incorrect", "instead", "invalid", "is",
	"isn't", "it", "its", "length", "malformed", "may", "minimum",
	"mismatch", "missing", "must", "no", "not", "number", "object", "of",
	"off", "on", "only", "optional", "or", "parameter", "path", "please",
	"provided", "realm", "received", "rejected", "required", "requires",
	"revoked", "scheme", "security", "set", "shall", "should", "string",
	"supplied", "that", "the", "these", "this", "to", "token", "tokens",
	"too", "type", "unable", "unauthorized", "unexpected", "unknown",
	"unset", "unsupported", "updated", "use", "value", "was", "wasn't",
	"were", "will", "with", "would", "wrong", "you", "your"
};

static const char *const blank_words[] = {
	"null", "none", "nil", "undefined", "nan", "true", "false", "yes", "no",
	"redacted", "filtered", "hidden", "masked", "scrubbed", "removed",
	"sensitive"
};

/* Packages of Go, which stand before their errors. */
static const char *const package_words[] = {
	"argon2", "asn1", "base64", "ed25519", "http2", "ipv4", "k8s", "md5",
	"oauth2", "p256", "pkcs1", "pkcs12", "pkcs8", "s3", "sec1", "sha1",
	"sha256", "sha512", "utf8", "x509"
};

bool
jobq_scan_is_one_of(const JobqScan *s, size_t from, size_t to,
					const char *const *words, size_t n)
{
	char		first;

	if (to - from > JOBQ_WORD_MAX)
		return false;
	first = jobq_lower(jobq_peek(s, from));
	for (size_t i = 0; i < n; i++)
	{
		if (words[i][0] == first && strlen(words[i]) == to - from &&
			jobq_stands(s, from, words[i]))
			return true;
	}
	return false;
}

bool
jobq_scan_is_common(const JobqScan *s, size_t from, size_t to)
{
	return JOBQ_IS_ONE_OF(s, from, to, common_words);
}

bool
jobq_scan_all_are(const JobqScan *s, size_t from, size_t to, const char *set)
{
	while (from < to && strchr(set, s->text[from]) != NULL)
		from++;
	return from == to;
}

bool
jobq_scan_is_identifier(const JobqScan *s, size_t from, size_t to)
{
	if (from >= to || to - from > JOBQ_SCAN_NAME_MAX || jobq_is_digit(s->text[from]))
		return false;
	while (from < to && (jobq_is_alnum(s->text[from]) || s->text[from] == '_'))
		from++;
	return from == to;
}

/* What programs and SQL have in the place of a value: $1, ?, %s, :name, … */
static bool
is_placeholder(const JobqScan *s, size_t from, size_t to)
{
	char		next = jobq_peek(s, from + 1);

	switch (s->text[from])
	{
		case '?':
			return to - from == 1;
		case ':':
			return jobq_scan_is_identifier(s, from + 1, to);
		case '$':
			if (jobq_scan_all_are(s, from + 1, to, "0123456789"))
				return true;
			return to - from <= JOBQ_SCAN_NAME_MAX &&
				((next == '{' && s->text[to - 1] == '}') ||
				 jobq_scan_all_are(s, from + 1, to, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"));
		case '%':
			return to - from == 2 ? strchr("sdvq@", next) != NULL :
				to - from <= JOBQ_SCAN_NAME_MAX && next == '(' &&
				s->text[to - 1] == 's';
		case '<':
			return to - from <= JOBQ_SCAN_NAME_MAX && s->text[to - 1] == '>' &&
				to - from > 2 && jobq_is_letter(next);
		case '{':
			return to - from <= JOBQ_SCAN_NAME_MAX && s->text[to - 1] == '}' &&
				(next == '}' || next == '{' ||
				 jobq_scan_is_identifier(s, from + 1, to - 1));
		default:
			return false;
	}
}

bool
jobq_scan_is_blank(const JobqScan *s, size_t from, size_t to)
{
	while (from < to && strchr("[(<", s->text[from]) != NULL &&
		   strchr("])>", s->text[to - 1]) != NULL)
	{
		if (is_placeholder(s, from, to))
			return true;
		from++;
		to -= to > from;
	}
	if (from >= to)
		return true;
	/* with what a placeholder may have had before it was hidden */
	return jobq_scan_all_are(s, from, to, "*:{$") ||
		(to - from > 2 && jobq_scan_all_are(s, from, to, "xX")) ||
		JOBQ_IS_ONE_OF(s, from, to, blank_words) || is_placeholder(s, from, to);
}

bool
jobq_scan_looks_secret(const JobqScan *s, size_t from, size_t to)
{
	bool		digit = false;
	bool		letter = false;
	bool		lower = false;
	bool		upper = false;

	if (to - from >= 20)
		return true;
	for (size_t i = from; i < to; i++)
	{
		digit |= jobq_is_digit(s->text[i]);
		letter |= jobq_is_letter(s->text[i]);
		lower |= jobq_is_lower(s->text[i]);
		upper |= i > from && jobq_is_upper(s->text[i]);
	}
	return (to - from >= 6 && digit && letter) ||
		(to - from >= 10 && lower && upper);
}

/* A word of a sentence, rather than a value: by its looks alone. */
bool
jobq_scan_looks_like_prose(const JobqScan *s, size_t from, size_t to)
{
	char		after = jobq_peek(s, to);
	size_t		i = from;
	size_t		capitals = 0;

	if (to - from > 256)
		return false;
	for (; i < to && (jobq_is_letter(s->text[i]) || s->text[i] == '-' ||
					  s->text[i] == '\''); i++)
		capitals += jobq_is_upper(s->text[i]);
	if (i == to)
		return to - from <= JOBQ_WORD_MAX &&
			(capitals == to - from || capitals == 0 ||
			 (capitals == 1 && jobq_is_upper(s->text[from])));
	if (to - from <= 3 && jobq_scan_all_are(s, from, to, "0123456789"))
		return after == ' ' && jobq_is_letter(jobq_peek(s, to + 1));
	if (after == ':')
		return JOBQ_IS_ONE_OF(s, from, to, package_words) ||
			(s->text[from] == '/' &&
			 memchr(s->text + from + 1, '/', to - from - 1) != NULL);
	/* of a URL only what is in it may be secret, and is looked for there */
	for (i = from; i + 2 < to; i++)
	{
		if (jobq_stands(s, i, "://"))
			return true;
	}
	return false;
}

/* ---- where a value ends ---- */

/* Does a name and its sign begin here? Then a comma has ended a value. */
static bool
is_name_and_sign(const JobqScan *s, size_t i)
{
	size_t		from;

	if (jobq_is_quote(jobq_peek(s, i)))
		i++;
	from = i;
	while (i - from < JOBQ_SCAN_NAME_MAX && (jobq_is_name_char(jobq_peek(s, i)) ||
										   jobq_peek(s, i) == '*'))
		i++;
	if (i > from && jobq_is_quote(jobq_peek(s, i)))
		i++;
	return i > from && (jobq_peek(s, i) == '=' || jobq_peek(s, i) == ':');
}

/* A quote in the middle of a word belongs to it. */
static bool
ends_at(const JobqScan *s, size_t i)
{
	char		c = s->text[i];
	char		next = jobq_peek(s, i + 1);

	if (jobq_is_space(c) || c == '<')
		return true;
	if (jobq_is_quote(c))
		return !jobq_is_alnum(next) && (unsigned char) next < 0x80;
	if (c == '&' || c == ',' || c == ';')
		return next == '\0' || jobq_is_space(next) || jobq_is_quote(next) ||
			is_name_and_sign(s, i + 1);
	return c == '%' && jobq_stands(s, i, "%26");
}

static size_t
trim(const JobqScan *s, size_t from, size_t to)
{
	while (to > from && strchr(".,;:!?)]}>\\\"'`", s->text[to - 1]) != NULL)
		to--;
	return to;
}

/*
 * A word may have many names in it, as pass:pass:pass:…, and all values in it
 * end where the first one does: it is read once.
 */
size_t
jobq_scan_word_end(JobqScan *s, size_t from)
{
	if (from < s->value_from || from >= s->value_stop)
	{
		size_t		to = from;

		while (to < s->length && !ends_at(s, to))
			to++;
		s->value_from = from;
		s->value_to = trim(s, from, to);
		s->value_stop = to;
	}
	return from > s->value_to ? from : s->value_to;
}

size_t
jobq_scan_line_end(const JobqScan *s, size_t from, char end)
{
	size_t		to = from;

	while (to < s->length && s->text[to] != '\n' && s->text[to] != '\r' &&
		   (end == 0 || s->text[to] != end))
		to++;
	return trim(s, from, to);
}
