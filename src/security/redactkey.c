/*
 * redactkey.c: hides values that a name in front of them makes secrets, as in
 * password=…, "token": "…", Authorization: …. Must leave alone what only speaks
 * of passwords. Plain C.
 */
#include "security/redactscan.h"

#define SLASHES_MAX	8			/* before a quote */

/* ---- a name ---- */

/* A name before a value, and what stands around it. */
typedef struct Name
{
	JobqNameKind	kind;
	size_t		from;			/* with all that belongs to the word */
	size_t		core;			/* where its end begins that makes it one */
	char		quote;			/* it is in these, 0 = it is not */
	char		outer;			/* a quote before it that is still open */
} Name;

/* What is before the name, whose word begins where a blank or a sign is. */
static void
look_before(const JobqScan *s, Name *name)
{
	size_t		core = name->core;
	size_t		limit = core > JOBQ_SCAN_NAME_MAX ?
		core - JOBQ_SCAN_NAME_MAX : 0;

	name->from = core;
	while (name->from > limit && jobq_is_name_char(jobq_before(s, name->from)))
		name->from--;
	name->outer = jobq_before(s, name->from);
	if (!jobq_is_quote(name->outer))
		name->outer = 0;
}

/* A call without arguments, as in token = get_token(). */
static bool
is_call(const JobqScan *s, size_t from, size_t to)
{
	if (s->text[to - 1] != '(' || jobq_peek(s, to) != ')' ||
		to - from > JOBQ_SCAN_NAME_MAX)
		return false;
	while (jobq_is_name_char(s->text[from]))
		from++;
	return from == to - 1;
}

/* Another thing's field, as in t.token = s.token. */
static bool
is_field(const JobqScan *s, size_t from, size_t to)
{
	size_t		dot = to;
	size_t		core;

	if (to - from > JOBQ_SCAN_NAME_MAX)
		return false;
	while (dot > from && s->text[dot - 1] != '.')
		dot--;
	return dot > from + 1 && jobq_scan_is_identifier(s, from, dot - 1) &&
		jobq_scan_is_identifier(s, dot, to) && jobq_scan_name(s, to, &core) != NAME_NONE;
}

/* ---- between name and value ---- */

typedef enum Sign
{
	SIGN_NONE,
	SIGN_EQUAL,
	SIGN_COMPARED,				/* ==, which only a value in quotes follows */
	SIGN_COLON,
	SIGN_COLON_BLANK,
	SIGN_ENCODED,				/* %3D or %3A */
	SIGN_TAG,					/* <password>… */
	SIGN_QUOTED,				/* PASSWORD '…' */
	SIGN_FLAG					/* --password … */
} Sign;

/* The quote that closes the name, if it is in quotes. */
static size_t
skip_quote(const JobqScan *s, size_t i, Name *name)
{
	size_t		at = i;

	while (jobq_peek(s, at) == '\\')
		at++;
	if (name->outer == 0 || jobq_peek(s, at) != name->outer)
		return i;
	name->quote = name->outer;
	name->outer = 0;
	return at + 1;
}

/* "name": "password", "value": … */
static size_t
skip_to_value(const JobqScan *s, size_t i)
{
	size_t		at = jobq_skip_blanks(s, i + 1);

	while (jobq_peek(s, at) == '\\' || jobq_is_quote(jobq_peek(s, at)))
		at++;
	if (!jobq_stands(s, at, "value"))
		return i;
	at += 5;
	while (jobq_peek(s, at) == '\\' || jobq_is_quote(jobq_peek(s, at)))
		at++;
	return jobq_skip_blanks(s, at);
}

/* A tag begins before i, perhaps with a namespace. */
static bool
is_tag(const JobqScan *s, size_t i)
{
	size_t		limit = i > JOBQ_SCAN_NAME_MAX ? i - JOBQ_SCAN_NAME_MAX : 0;

	if (jobq_before(s, i) == ':')
		i--;
	while (i > limit && jobq_is_name_char(jobq_before(s, i)))
		i--;
	return jobq_before(s, i) == '<';
}

static Sign
find_sign(const JobqScan *s, Name *name, size_t *value)
{
	size_t		end = skip_quote(s, s->at, name);
	size_t		i;
	Sign		sign = SIGN_NONE;

	if (name->quote != 0 && jobq_peek(s, end) == ']')
		end++;
	i = jobq_skip_blanks(s, end);
	if (name->quote != 0 && jobq_peek(s, i) == ',')
		i = skip_to_value(s, i);
	switch (jobq_peek(s, i))
	{
		case '=':
			sign = SIGN_EQUAL;
			i++;
			if (jobq_peek(s, i) == '>')
				i++;
			while (jobq_peek(s, i) == '=')
			{
				sign = SIGN_COMPARED;
				i++;
			}
			break;
		case ':':
			sign = SIGN_COLON;
			i++;
			if (jobq_peek(s, i) == ':' || jobq_stands(s, i, "//"))
				return SIGN_NONE;
			if (jobq_peek(s, i) == '=')
			{
				sign = SIGN_EQUAL;
				i++;
			}
			break;
		case '%':
			if (!jobq_stands(s, i, "%3d") && !jobq_stands(s, i, "%3a"))
				return SIGN_NONE;
			sign = SIGN_ENCODED;
			i += 3;
			break;
		case '>':
			if (!is_tag(s, name->from) || i > s->at)
				return SIGN_NONE;
			sign = SIGN_TAG;
			i++;
			break;
		case '(':
		case '\'':
			if ((name->kind != NAME_PASSWORD && name->kind != NAME_SQL) ||
				name->quote != 0 || name->outer != 0)
				return SIGN_NONE;
			i += jobq_peek(s, i) == '(';
			if (jobq_peek(s, i) != '\'' || i == s->at)
				return SIGN_NONE;
			sign = SIGN_QUOTED;
			break;
		default:
			if (i == end || jobq_peek(s, name->from) != '-' ||
				jobq_peek(s, name->from + 1) != '-')
				return SIGN_NONE;
			sign = SIGN_FLAG;
			break;
	}
	*value = jobq_skip_blanks(s, i);
	if (sign == SIGN_COLON && *value > i)
		sign = SIGN_COLON_BLANK;
	return name->kind == NAME_SQL && sign != SIGN_QUOTED ? SIGN_NONE : sign;
}

/* ---- what is before and behind ---- */

/* Before a token that a parser has met. */
static const char *const parser_words[] = {
	"unexpected", "invalid", "unknown", "unrecognized", "unrecognised",
	"illegal", "bad", "expected", "expecting", "near", "next", "no",
	"malformed", "undefined", "extraneous", "stray", "duplicate", "missing",
	"last", "first"
};

/*
 * Before a name that a message is about: what follows its colon is why that has
 * failed.
 */
static const char *const telling_words[] = {
	"a", "access", "acquire", "acquiring", "an", "auth", "build", "building",
	"cannot", "change", "changing", "check", "checking", "compare",
	"comparing", "compute", "could", "create", "creating", "decode",
	"decoding", "decrypt", "decrypting", "delete", "deleting", "derive",
	"encode", "encrypt", "encrypting", "error", "exchange", "exchanging",
	"fetch", "fetching", "find", "finding", "for", "generate", "generating",
	"get", "getting", "hash", "hashing", "issue", "issuing", "load",
	"loading", "manager", "marshal", "missing", "mount", "mounting", "no",
	"obtain", "obtaining", "of", "open", "opening", "parse", "parsing",
	"process", "read", "reading", "refresh", "refreshing", "reject",
	"renew", "renewing", "request", "requesting", "reset", "resetting",
	"retrieve", "retrieving", "revoke", "revoking", "rotate", "rotating",
	"save", "saving", "send", "sending", "session", "set", "setting",
	"sign", "store", "storing", "update", "updating", "validate",
	"validating", "verify", "verifying", "write", "writing"
};

/* Is one of these words right before the name? */
static bool
follows(const JobqScan *s, const Name *name, const char *const *words,
		size_t nwords)
{
	size_t		to = name->from;
	size_t		from;

	while (name->from - to < 4 && jobq_before(s, to) == ' ')
		to--;
	from = to;
	while (to - from <= JOBQ_WORD_MAX && jobq_is_letter(jobq_before(s, from)))
		from--;
	return to < name->from && from < to &&
		jobq_scan_is_one_of(s, from, to, words, nwords);
}

#define FOLLOWS(s, name, words) \
	follows(s, name, words, sizeof(words) / sizeof((words)[0]))

/* As "decrypting: secret: …": the name is one of a chain of causes. */
static bool
follows_colon(const JobqScan *s, const Name *name)
{
	return jobq_before(s, name->from) == ' ' && name->from > s->floor &&
		jobq_before(s, name->from - 1) == ':';
}

/* A parser speaks of a token that it has met. */
static bool
is_parsers(const JobqScan *s, const Name *name, size_t from, size_t to)
{
	return name->kind == NAME_SECRET && FOLLOWS(s, name, parser_words) &&
		!jobq_scan_looks_secret(s, from, to);
}

/* A sentence: what forms say about a field, in an array. */
static bool
is_sentence(const JobqScan *s, size_t from, size_t to)
{
	size_t		end = from;

	while (end < to && end - from <= JOBQ_WORD_MAX && !jobq_is_space(s->text[end]))
		end++;
	return to - from <= 200 && end < to && jobq_scan_is_common(s, from, end);
}

/* After name and sign a message goes on, rather than a value. */
static bool
goes_on(const JobqScan *s, const Name *name, Sign sign, size_t value,
		size_t to)
{
	if (sign == SIGN_TAG || sign == SIGN_ENCODED)
		return false;
	if (is_parsers(s, name, value, to) || is_field(s, value, to) ||
		is_call(s, value, to))
		return true;
	if (sign == SIGN_EQUAL && s->text[value - 1] == '=')
		return false;
	if (jobq_scan_is_common(s, value, to))
		return true;
	/* the number of a line */
	if (sign == SIGN_COLON)
		return name->kind == NAME_SECRET && to - value <= 5 &&
			jobq_scan_all_are(s, value, to, "0123456789");
	return sign == SIGN_COLON_BLANK && name->quote == 0 &&
		(FOLLOWS(s, name, telling_words) ||
		 (name->kind == NAME_SECRET && follows_colon(s, name))) &&
		jobq_scan_looks_like_prose(s, value, to);
}

static bool
has_weight(const JobqScan *s, const Name *name, Sign sign, size_t value,
		   size_t to)
{
	char		before = jobq_before(s, name->core);

	if (jobq_lower(s->text[name->core]) == 's')
		return sign == SIGN_EQUAL && to - value >= 20;
	if (jobq_stands(s, value, "***") ||
		jobq_scan_all_are(s, value, to, "0123456789.") ||
		jobq_scan_is_common(s, value, to))
		return false;
	if (jobq_lower(s->text[name->core]) == 'a')
		return jobq_scan_looks_secret(s, value, to) || jobq_peek(s, to) == '=';
	return sign == SIGN_EQUAL || name->quote != 0 || before == '_' ||
		before == '-' || before == '.';
}

/* Is there nothing in it that could be a secret? */
static bool
is_only_signs(const JobqScan *s, size_t from, size_t to)
{
	size_t		i = from;

	while (i < to && !jobq_is_alnum(s->text[i]) &&
		   (unsigned char) s->text[i] < 0x80)
		i++;
	return i == to && to - from < 4;
}

/* ---- in quotes ---- */

/* A value in quotes, which backslashes may precede; to the closing ones. */
typedef struct Quoted
{
	size_t		from;
	size_t		to;
	size_t		after;
} Quoted;

static bool
is_quote_at(const JobqScan *s, size_t i)
{
	size_t		limit = i + SLASHES_MAX;

	while (i < limit && jobq_peek(s, i) == '\\')
		i++;
	return jobq_is_quote(jobq_peek(s, i));
}

/* The closing quote, or the end of the line. */
static size_t
quoted_end(const JobqScan *s, size_t from, char quote, size_t slashes)
{
	size_t		n = 0;

	for (size_t i = from; i < s->length; i++)
	{
		char		c = s->text[i];

		if (c == '\n')
			return i;
		if (c == '\\')
		{
			n++;
			continue;
		}
		if (c == quote && (slashes > 0 ? n == slashes : n % 2 == 0))
		{
			/* SQL doubles one in it; one behind a backslash is not doubled */
			if (quote != '\'' || slashes > 0 || i == from ||
				jobq_peek(s, i + 1) != quote)
				return i - slashes;
			i++;
		}
		n = 0;
	}
	return s->length;
}

static void
find_quoted(const JobqScan *s, size_t i, Quoted *quoted)
{
	size_t		slashes = 0;

	while (jobq_peek(s, i + slashes) == '\\')
		slashes++;
	quoted->from = i + slashes + 1;
	quoted->to = quoted_end(s, quoted->from, s->text[i + slashes], slashes);
	quoted->after = quoted->to + slashes + 1;
}

static bool
is_secret_quoted(const JobqScan *s, const Name *name, Sign sign,
				 const Quoted *quoted)
{
	size_t		from = quoted->from;
	size_t		to = quoted->to;

	if (to <= from || jobq_stands(s, from, "-----begin ") ||
		jobq_scan_is_blank(s, from, to))
		return false;
	if (name->kind == NAME_WEAK)
		return has_weight(s, name, sign, from, to);
	return sign == SIGN_EQUAL || name->quote != 0 ||
		!is_parsers(s, name, from, to);
}

static bool
hide_quoted(JobqScan *s, const Name *name, Sign sign, size_t value)
{
	Quoted		quoted;

	find_quoted(s, value, &quoted);
	if (!is_secret_quoted(s, name, sign, &quoted))
		return false;
	jobq_scan_hide(s, quoted.from, quoted.to);
	return true;
}

/* Of an array all that is in quotes, but for sentences. */
static bool
hide_array(JobqScan *s, const Name *name, Sign sign, size_t i)
{
	bool		hidden = false;

	while (is_quote_at(s, i))
	{
		Quoted		quoted;

		find_quoted(s, i, &quoted);
		if (is_secret_quoted(s, name, sign, &quoted) &&
			!is_sentence(s, quoted.from, quoted.to))
		{
			jobq_scan_hide(s, quoted.from, quoted.to);
			hidden = true;
		}
		i = jobq_skip_blanks(s, quoted.after);
		if (jobq_peek(s, i) != ',')
			break;
		i = jobq_skip_blanks(s, i + 1);
	}
	return hidden;
}

/* ---- without quotes ---- */

/* Schemes that one word follows; after all others the whole line goes. */
static const char *const schemes[] = {
	"bearer", "basic", "token", "apikey", "api-key", "key", "negotiate",
	"ntlm", "jwt", "bot", "splunk", "genie-key", "sso-key"
};

/* Of a header's value the scheme stays. */
static bool
hide_header(JobqScan *s, const Name *name, Sign sign, size_t value)
{
	size_t		to = value;
	size_t		next;

	while (jobq_is_alnum(jobq_peek(s, to)) || jobq_peek(s, to) == '-')
		to++;
	next = jobq_skip_blanks(s, to);
	if (next > to && JOBQ_IS_ONE_OF(s, value, to, schemes))
	{
		value = next;
		to = jobq_scan_word_end(s, value);
		if (to <= value || jobq_scan_is_common(s, value, to))
			return false;
	}
	else if (goes_on(s, name, sign, value, jobq_scan_word_end(s, value)))
		return false;
	else
		to = jobq_scan_line_end(s, value, name->outer);
	if (to <= value || jobq_scan_is_blank(s, value, to))
		return false;
	jobq_scan_hide(s, value, to);
	return true;
}

/*
 * Where the value ends, which begins with a word up to `to`: it may have
 * several in Server=…;Password=two words;…, in a tag, and where nothing else is
 * in a line.
 */
static size_t
plain_end(const JobqScan *s, const Name *name, Sign sign, size_t value,
		  size_t to)
{
	size_t		before = name->from;

	while (name->from - before < 4 && jobq_before(s, before) == ' ')
		before--;
	if (sign == SIGN_EQUAL && jobq_before(s, before) == ';')
		return jobq_scan_line_end(s, value, ';');
	if (sign == SIGN_TAG)
		return jobq_scan_line_end(s, value, '<');
	if (sign == SIGN_COLON_BLANK && name->kind == NAME_PASSWORD &&
		jobq_before(s, name->from) == '\n' &&
		jobq_scan_looks_like_prose(s, value, to))
		return jobq_scan_line_end(s, value, '\0');
	return to;
}

static bool
hide_plain(JobqScan *s, const Name *name, Sign sign, size_t value)
{
	size_t		to;

	if (name->kind == NAME_HEADER)
		return hide_header(s, name, sign, value);
	to = jobq_scan_word_end(s, value);
	if (to <= value || is_only_signs(s, value, to) ||
		jobq_scan_is_blank(s, value, to) ||
		goes_on(s, name, sign, value, to))
		return false;
	if (name->kind == NAME_WEAK && !has_weight(s, name, sign, value, to))
		return false;
	to = plain_end(s, name, sign, value, to);
	if (to <= value ||
		(sign == SIGN_TAG && s->text[value - 1] != '>' &&
		 jobq_peek(s, to) != '<'))
		return false;
	jobq_scan_hide(s, value, to);
	return true;
}

/* ---- both ---- */

/* Do quotes follow, of which the first was open before the name? */
static bool
closes_outer(const JobqScan *s, const Name *name, size_t i)
{
	while (jobq_peek(s, i) == '\\')
		i++;
	return name->outer != 0 && jobq_peek(s, i) == name->outer;
}

/* A literal may have a letter in front of its quote. */
static size_t
skip_letter(const JobqScan *s, size_t i)
{
	return s->text[i] != '\0' && strchr("bBuUrRnNeE", s->text[i]) != NULL &&
		is_quote_at(s, i + 1) ? i + 1 : i;
}

bool
jobq_scan_value(JobqScan *s)
{
	Name		name = {.kind = NAME_NONE};
	size_t		value = 0;
	Sign		sign;
	char		next;

	name.kind = jobq_scan_name(s, s->at, &name.core);
	if (name.kind == NAME_NONE)
		return false;
	look_before(s, &name);
	sign = find_sign(s, &name, &value);
	if (sign == SIGN_NONE || value >= s->length)
		return false;
	value = skip_letter(s, value);
	if (is_quote_at(s, value))
		return !closes_outer(s, &name, value) &&
			hide_quoted(s, &name, sign, value);
	if (sign == SIGN_COMPARED || sign == SIGN_QUOTED)
		return false;
	next = jobq_peek(s, value + 1);
	switch (s->text[value])
	{
		case '\n':
		case '\r':
			return false;
		case '-':
			if (sign == SIGN_FLAG || jobq_stands(s, value, "-----begin "))
				return false;
			break;
		case '[':
		case '(':
			if (is_quote_at(s, jobq_skip_blanks(s, value + 1)))
				return hide_array(s, &name, sign,
								  jobq_skip_blanks(s, value + 1));
			break;
		case '{':
			if (jobq_is_quote(next) || jobq_is_space(next))
				return false;
			break;
	}
	return hide_plain(s, &name, sign, value);
}
