/*
 * redact.c: hides secrets in a text, in one pass. What is one is decided in
 * redact*.c: by its own shape, or by the name in front of it. Plain C, no
 * server headers; allocates nothing, never fails.
 */
#include "security/redactscan.h"

#define MARK			"***"
#define MARK_LENGTH		3

/* ---- the output ---- */

size_t
jobq_redact_room(size_t length)
{
	return length * MARK_LENGTH + MARK_LENGTH;
}

static bool
ends_word(char c)
{
	return jobq_is_space(c) || jobq_is_quote(c);
}

void
jobq_scan_copy(JobqScan *s, size_t to)
{
	while (s->at < to)
	{
		char		c = s->text[s->at++];

		s->out[s->used++] = c;
		if (ends_word(c))
		{
			s->word_out = s->used;
			s->colon = 0;
		}
		else if (c == ':' && s->colon == 0)
			s->colon = s->used;
	}
}

static void
put_mark(JobqScan *s, size_t to)
{
	memcpy(s->out + s->used, MARK, MARK_LENGTH);
	s->used += MARK_LENGTH;
	s->at = to;
	s->floor = to;
}

void
jobq_scan_hide(JobqScan *s, size_t from, size_t to)
{
	jobq_scan_copy(s, from);
	put_mark(s, to);
}

void
jobq_scan_hide_again(JobqScan *s, size_t out, size_t to)
{
	s->used = out;
	put_mark(s, to);
	if (s->word_out > s->used)
		s->word_out = s->used;
	if (s->colon > out)
		s->colon = 0;
}

/* ---- jobq.redact_patterns ---- */

static const char *
parse_pattern(const char *from, size_t length, JobqRedactPatterns *patterns)
{
	int			n = patterns->n;
	size_t		star = 0;

	if (n == JOBQ_REDACT_PATTERNS)
		return "There may be at most 32 patterns.";
	if (length > JOBQ_REDACT_LENGTH)
		return "A pattern may have at most 64 bytes.";
	patterns->pattern[n].is_name = from[length - 1] == '=';
	patterns->pattern[n].rest = from[length - 1] == '*';
	length -= (size_t) (patterns->pattern[n].is_name ||
						patterns->pattern[n].rest);
	for (size_t i = 0; i < length; i++)
	{
		char		c = from[i];

		star += c == '*';
		if (patterns->pattern[n].is_name && !jobq_is_name_char(c))
			return "Before the equals sign stands a name of letters, digits, \"_\", \"-\" and \".\".";
	}
	if (star > 0)
		return "\"*\" stands for the rest of a word, so it comes last.";
	if (length < 3 ||
		(!jobq_is_alnum(from[0]) && from[0] != '#' && from[0] != '?'))
		return "A pattern begins with a letter, a digit, \"#\" or \"?\" and has at least three characters besides \"*\" and \"=\".";
	memcpy(patterns->pattern[n].text, from, length);
	patterns->pattern[n].length = (int) length;
	patterns->n++;
	return NULL;
}

const char *
jobq_redact_parse(const char *setting, JobqRedactPatterns *patterns)
{
	memset(patterns, 0, sizeof(*patterns));
	while (*setting != '\0')
	{
		size_t		n = 0;

		while (setting[n] != '\0' && setting[n] != ',' &&
			   !jobq_is_space(setting[n]))
			n++;
		if (n > 0)
		{
			const char *wrong = parse_pattern(setting, n, patterns);

			if (wrong != NULL)
				return wrong;
		}
		setting += n + (setting[n] != '\0');
	}
	return NULL;
}

/* ---- the pass ---- */

/* A token may also begin after an escape such as \n or %20. */
static bool
begins_word(const JobqScan *s, size_t i)
{
	char		before = jobq_before(s, i);

	if (!jobq_is_alnum(before))
		return true;
	if (i >= s->floor + 2 && s->text[i - 2] == '\\')
		return before == 'n' || before == 't' || before == 'r';
	return i >= s->floor + 3 && s->text[i - 3] == '%' &&
		jobq_is_hex(s->text[i - 2]) && jobq_is_hex(before);
}

/* Digits in a row that are not a card's are none from their middle either. */
static void
copy_one(JobqScan *s)
{
	size_t		to = s->at + 1;

	if (jobq_is_digit(s->text[s->at]))
	{
		while (jobq_is_digit(jobq_peek(s, to)))
			to++;
	}
	jobq_scan_copy(s, to);
}

static bool
hide_here(JobqScan *s)
{
	switch (s->text[s->at])
	{
		case ':':
			return jobq_peek(s, s->at + 1) == '/' &&
				jobq_peek(s, s->at + 2) == '/' && jobq_scan_userinfo(s);
		case '@':
			return jobq_scan_source(s);
		case '-':
			return jobq_scan_pem(s);
		case '$':
			return !jobq_is_alnum(jobq_before(s, s->at)) && jobq_scan_token(s);
		default:
			return jobq_is_alnum(s->text[s->at]) && begins_word(s, s->at) &&
				jobq_scan_word(s);
	}
}

static bool
ends_name(const JobqScan *s)
{
	char		before = jobq_before(s, s->at);
	char		c = jobq_peek(s, s->at);

	return s->ends[(unsigned char) before] && !jobq_is_alnum(c) &&
		c != '_' && c != '-';
}

size_t
jobq_redact_scan(const char *text, size_t length,
				 const JobqRedactPatterns *patterns, char *out)
{
	JobqScan	s = {.text = text,.length = length,.out = out,
	.patterns = patterns};

	jobq_scan_note_tokens(&s);
	jobq_scan_note_names(&s);
	while (s.at < length)
	{
		if (ends_name(&s) && jobq_scan_value(&s))
			continue;
		if (s.at < length && !hide_here(&s))
			copy_one(&s);
	}
	return s.used;
}
